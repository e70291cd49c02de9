"""How a process ended, as read from what anybody may have written."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyon.domain.states import ExitReason
from anyon.processes.exits import BROKEN, ExitRecord, exit_of, parse_exit

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        (b"0 \n", 0, ExitReason.EXITED),
        (b"255 \n", 255, ExitReason.EXITED),
        (b"128 \n", 128, ExitReason.EXITED),
        (b"143 \n", 143, ExitReason.SIGNALLED),
        (b"143 timeout\n", 143, ExitReason.TIMEOUT),
        (b"0 killed_by_user\n", 0, ExitReason.KILLED_BY_USER),
        (b"- machine_lost\n", None, ExitReason.MACHINE_LOST),
    ],
)
def test_what_the_wrapper_writes_is_understood(content, code, reason):
    """A code is an exit or a signal's, unless a reason stands beside it."""
    ended = exit_of(parse_exit(content), at=AT, oom=False)
    assert (ended.code, ended.reason, ended.at) == (code, reason, AT)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"0",
        b"0 ",
        b"256 \n",
        b"-1 \n",
        b"- \n",
        b"0 no_such\n",
        b"0 \n0 \n",
        b"1" * 99,
        b"\xff\n",
        "٣ \n".encode(),
    ],
)
def test_what_it_would_not_write_is_an_interruption(content):
    """Nonsense is never an exit code."""
    assert parse_exit(content) == BROKEN


@given(st.one_of(st.none(), st.binary(max_size=100)))
def test_nothing_breaks_the_reader(content):
    """Any bytes give a record, and a code only between 0 and 255."""
    record = parse_exit(content)
    assert record.code is None or 0 <= record.code <= 255


@given(st.one_of(st.none(), st.integers(0, 255)), st.sampled_from(ExitReason))
def test_what_is_written_is_read(code, reason):
    """A record survives its file."""
    record = ExitRecord(code, reason)
    assert parse_exit(record.to_bytes()) == record


def test_memory_is_blamed_for_a_kill_that_nobody_of_us_sent_only():
    """OOM is a KILL without a reason while the container's count rose."""
    assert exit_of(ExitRecord(137, None), at=AT, oom=True).reason is ExitReason.OOM
    assert exit_of(ExitRecord(137, None), at=AT, oom=False).reason is ExitReason.SIGNALLED
    assert exit_of(ExitRecord(1, None), at=AT, oom=True).reason is ExitReason.EXITED
    killed = ExitRecord(137, ExitReason.KILLED_BY_USER)
    assert exit_of(killed, at=AT, oom=True).reason is ExitReason.KILLED_BY_USER
