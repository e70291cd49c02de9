"""Short stretches of work that somebody stands still for, done before other work of this machine.

Where the server may (it is root, or has CAP_SYS_NICE) the thread goes before all that have no
real-time priority: a mere nice value would count among the programs of one session only. Where it
may not, nothing is lost but time. Meanwhile Python's threads give way to each other sooner: else
each file that is opened may wait for a thread that computes. And Python does not look for garbage:
in a large server that takes a tenth of a second.
"""

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SWITCH_SECONDS = 0.0005

_lock = threading.Lock()
_inside: dict[int, int] = {}
"""How many stretches each thread is in: on an event loop they need not end in turn."""
_usual = 0.0
_collects = True


@contextmanager
def urgent() -> Iterator[None]:
    """Do what is inside before others; meant for milliseconds. Ends in the thread that it began in."""
    thread = threading.get_native_id()
    _enter(thread)
    try:
        yield
    finally:
        _leave(thread)


def yield_to_others(nice: int) -> None:
    """Give this thread, for all its life, a lower priority than its process has."""
    thread = threading.get_native_id()
    lower = min(os.getpriority(os.PRIO_PROCESS, os.getpid()) + nice, 19)
    with suppress(OSError):  # a sandbox may forbid even that
        os.setpriority(os.PRIO_PROCESS, thread, lower)


def _enter(thread: int) -> None:
    global _usual, _collects  # noqa: PLW0603 - these are the interpreter's, one for all threads
    with _lock:
        if not _inside:
            _collects = gc.isenabled()
            gc.disable()
            _usual = sys.getswitchinterval()
            sys.setswitchinterval(min(SWITCH_SECONDS, _usual))
        _inside[thread] = _inside.get(thread, 0) + 1
        if _inside[thread] == 1:
            # What the thread starts meanwhile is as usual. Refused, it stays: that is no error.
            with suppress(OSError):
                policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
                os.sched_setscheduler(thread, policy, os.sched_param(1))


def _leave(thread: int) -> None:
    with _lock:
        _inside[thread] -= 1
        if not _inside[thread]:
            del _inside[thread]
            with suppress(OSError):
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
        if not _inside:
            sys.setswitchinterval(_usual)
            if _collects:
                gc.enable()
