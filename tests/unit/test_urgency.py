"""Urgent work goes before other work, and leaves everything as it was."""

import gc
import os
import sys
import threading

import pytest

from anyon import urgency


def standing() -> tuple[int, int]:
    """Return how this thread is scheduled."""
    return os.sched_getscheduler(0) & 0xFF, os.getpriority(
        os.PRIO_PROCESS, threading.get_native_id()
    )


def test_urgent_work_goes_first_and_everything_is_put_back() -> None:
    """Inside, threads switch sooner; after the last one all is as before."""
    before = standing(), sys.getswitchinterval()
    with urgency.urgent():
        with urgency.urgent():
            assert sys.getswitchinterval() < before[1]
        assert sys.getswitchinterval() < before[1]
        assert not gc.isenabled()
    assert (standing(), sys.getswitchinterval()) == before
    assert gc.isenabled()


def test_two_stretches_of_one_thread_may_end_in_any_order() -> None:
    """Two pauses that one event loop is in leave it as it was, whichever ends first."""
    before = standing(), sys.getswitchinterval()
    one, other = urgency.urgent(), urgency.urgent()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert sys.getswitchinterval() < before[1]
    other.__exit__(None, None, None)
    assert (standing(), sys.getswitchinterval()) == before


def test_it_is_put_back_after_an_error() -> None:
    """What fails inside does not leave the thread in front of all others."""
    before = standing(), sys.getswitchinterval()
    with pytest.raises(ValueError, match="inside"), urgency.urgent():
        raise ValueError("inside")
    assert (standing(), sys.getswitchinterval()) == before


def test_what_is_started_meanwhile_is_as_usual() -> None:
    """A thread that is started in urgent work has the usual standing."""
    before = standing()
    found: list[tuple[int, int]] = []
    with urgency.urgent():
        thread = threading.Thread(target=lambda: found.append(standing()))
        thread.start()
        thread.join()
    assert found == [before]


def test_without_the_right_to_it_work_is_done_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that may not raise its priority works on with the one it has."""

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    before = standing()
    with urgency.urgent():
        assert standing() == before
    urgency.yield_to_others(5)
    assert standing() == before


def test_a_thread_that_gives_way_keeps_others_as_they_are() -> None:
    """Only the thread that asks for it gets the lower priority."""
    before = standing()
    found: list[tuple[int, int]] = []

    def work() -> None:
        urgency.yield_to_others(5)
        found.append(standing())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(before[0], min(before[1] + 5, 19))]
    assert standing() == before
