"""Very many steps of the life machine, at random, in as many processes as there are cores.

`python -m tests.lifecycle.soak STEPS [PROCESSES]`: tells how far it is, stops at the first
violation (with the steps that led to it), and says at the end how many steps were taken.
"""

import logging
import multiprocessing
import os
import queue
import signal
import sys
import time
import traceback
from multiprocessing.queues import Queue

import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.lifecycle.life_machine import LifeMachine

LENGTH = 50
"""Steps of one life of the machine."""
ROUND = 40
"""Lives of one round; a new one begins with nothing remembered, so memory stays bounded."""
TELL_SECONDS = 30.0


def live(lives: int, *, length: int = LENGTH, at_random: bool, phases: list[Phase]) -> None:
    """Let the machine live so often; what it finds is raised."""
    run_state_machine_as_test(
        LifeMachine,
        settings=settings(
            max_examples=lives,
            stateful_step_count=length,
            derandomize=not at_random,
            database=None,
            deadline=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


def quiet() -> None:
    """Say nothing of what is meant to go wrong."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def work(share: int, told: "Queue[tuple[int, str]]") -> None:
    """Take *share* steps, telling each round's number, or what went wrong."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent's is inherited
    quiet()
    while LifeMachine.steps < share:
        before = LifeMachine.steps
        try:
            live(ROUND, at_random=True, phases=[Phase.generate, Phase.shrink])
        except BaseException:  # noqa: BLE001 - told to the parent, whatever it is
            told.put((LifeMachine.steps - before, traceback.format_exc()))
            return
        told.put((LifeMachine.steps - before, ""))


def soak(steps: int, processes: int) -> int:
    """Run them and return 0, or 1 after a violation."""
    context = multiprocessing.get_context("fork")
    told: Queue[tuple[int, str]] = context.Queue()
    share = -(-steps // processes)
    # Daemons end with this process, also when it is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    workers = [
        context.Process(target=work, args=(share, told), daemon=True) for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    began = last = time.monotonic()
    done, wrong = 0, ""
    while done < share * processes and not wrong and any(w.is_alive() for w in workers):
        try:
            count, wrong = told.get(timeout=10)
        except queue.Empty:
            continue
        done += count
        now = time.monotonic()
        if now - last >= TELL_SECONDS:
            last = now
            print(f"{done:,} of {steps:,} steps, {done / (now - began):.0f} a second", flush=True)
    for worker in workers:
        if wrong:
            worker.terminate()
        worker.join()
    if wrong or done < steps:
        print(wrong or "a worker died")
        return 1
    print(f"{done:,} steps, no violation, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(soak(int(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else os.cpu_count() or 1))
