"""Urgent work goes before other work, and leaves everything as it was."""

import os
import sys
import threading

import pytest

from anyon import urgency


def priority() -> int:
    """Return this thread's."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_urgent_work_goes_first_and_everything_is_put_back() -> None:
    """Inside, threads switch sooner and the priority is not lower; after the last one all is as before."""
    before = priority(), sys.getswitchinterval()
    with urgency.urgent():
        assert priority() <= before[0]
        with urgency.urgent():
            assert sys.getswitchinterval() < before[1]
        assert sys.getswitchinterval() < before[1]
    assert (priority(), sys.getswitchinterval()) == pytest.approx(before)


def test_it_is_put_back_after_an_error() -> None:
    """What fails inside does not leave the thread in front of all others."""
    before = priority(), sys.getswitchinterval()
    with pytest.raises(ValueError, match="inside"), urgency.urgent():
        raise ValueError("inside")
    assert (priority(), sys.getswitchinterval()) == pytest.approx(before)


def test_without_the_right_to_it_work_is_done_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that may not raise its priority works on with the one it has."""

    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    with urgency.urgent():
        done = True
    urgency.yield_to_others(5)
    assert done


def test_a_thread_that_gives_way_keeps_others_as_they_are() -> None:
    """Only the thread that asks for it gets the lower priority."""
    before = priority()
    found: list[int] = []

    def work() -> None:
        urgency.yield_to_others(5)
        found.append(priority())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [min(before + 5, 19)]
    assert priority() == before
