"""Head and tail of an output stay, whatever its size and however it is read."""

from hypothesis import given
from hypothesis import strategies as st

from anyon.engines.engine import Channel
from anyon.processes import outputs
from anyon.processes.directories import RunDirectory
from anyon.processes.outputs import NOTHING, Dropped, next_drop, place


@given(st.lists(st.integers(0, 5000), max_size=30), st.integers(1, 4000))
def test_head_and_tail_stay_within_the_cap(growth, cap):
    """However an output grows, what is kept is its head and its tail, and no more than the cap."""
    size, dropped = 0, NOTHING
    for step in growth:
        size += step
        dropped = next_drop(size, dropped, cap, final=False) or dropped
        assert size - (dropped.end - dropped.start) <= cap + cap // 4
    dropped = next_drop(size, dropped, cap, final=True) or dropped
    kept = size - (dropped.end - dropped.start)
    assert kept == min(size, cap) or kept <= cap
    if dropped:
        assert dropped.start == cap // 2
        assert kept == cap
    else:
        assert kept == size


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
def test_no_read_touches_what_is_dropped(offset, limit, start, length):
    """A read begins where it was asked to or after the gap, and never runs into it."""
    dropped = Dropped(start, start + length)
    begins, takes = place(offset, limit, dropped)
    assert begins >= offset
    assert takes <= limit
    assert not dropped or begins + takes <= dropped.start or begins >= dropped.end


def test_a_file_is_trimmed_and_read_across_the_gap(tmp_path):
    """What is dropped gives its space back, is told of, and the rest is as it was."""
    body = bytes(range(256)) * 4096
    with RunDirectory(tmp_path).create("p") as directory:
        (tmp_path / "p" / "stdout").write_bytes(body)
        assert outputs.trim(directory, Channel.STDOUT, 100_000, final=True)
        head = outputs.chunk(directory, Channel.STDOUT, 10, len(body))
        assert head.data == body[10:50_000]
        tail = outputs.chunk(directory, Channel.STDOUT, head.next_offset, len(body))
        assert tail.dropped_bytes == len(body) - 100_000
        assert tail.data == body[-50_000:]
        assert outputs.whole(directory, Channel.STDOUT) == body[:50_000] + body[-50_000:]
        assert (tmp_path / "p" / "stdout").stat().st_blocks * 512 < 200_000
        assert outputs.trim(directory, Channel.STDOUT, 100_000, final=True)  # again is harmless
        assert outputs.whole(directory, Channel.STDOUT) == body[:50_000] + body[-50_000:]
