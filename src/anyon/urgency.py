"""Short stretches of work that somebody stands still for, done before other work of this machine.

Where the server may (it is root, or has CAP_SYS_NICE) the thread gets a higher priority; where it
may not, nothing is lost but time. Meanwhile Python's threads give way to each other sooner: else
each file that is opened may wait for a thread that computes.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

NICE = -15
SWITCH_SECONDS = 0.0005

_lock = threading.Lock()
_inside = 0
_usual = 0.0


@contextmanager
def urgent() -> Iterator[None]:
    """Do what is inside with a high priority; for one thread, and at most for some seconds."""
    thread = threading.get_native_id()
    before = os.getpriority(os.PRIO_PROCESS, thread)
    with _switching_soon():
        try:
            # Without the right to raise it, it stays: that is no error.
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, thread, min(before, NICE))
            yield
        finally:
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, thread, before)


def yield_to_others(nice: int) -> None:
    """Give this thread, for all its life, a lower priority than its process has."""
    thread = threading.get_native_id()
    lower = min(os.getpriority(os.PRIO_PROCESS, os.getpid()) + nice, 19)
    with suppress(OSError):  # a sandbox may forbid even that
        os.setpriority(os.PRIO_PROCESS, thread, lower)


@contextmanager
def _switching_soon() -> Iterator[None]:
    global _inside, _usual  # noqa: PLW0603 - the interval is the interpreter's, one for all threads
    with _lock:
        if _inside == 0:
            _usual = sys.getswitchinterval()
            sys.setswitchinterval(min(SWITCH_SECONDS, _usual))
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                sys.setswitchinterval(_usual)
