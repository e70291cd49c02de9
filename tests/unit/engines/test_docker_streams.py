"""Taking the engine's frames apart."""

from hypothesis import given
from hypothesis import strategies as st

from anyon.engines.docker_streams import Demultiplexer, parse_exec
from anyon.engines.engine import Channel

FRAMES = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=8)


@given(frames=FRAMES, cuts=st.lists(st.integers(1, 12), min_size=1, max_size=8))
def test_frames_cut_anywhere_are_whole_again(
    frames: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    """However the connection cuts them, each channel's bytes arrive in order, none lost or empty."""
    wire = b"".join(bytes([c, 0, 0, 0]) + len(d).to_bytes(4, "big") + d for c, d in frames)
    taker = Demultiplexer()
    pieces: list[tuple[Channel, bytes]] = []
    position = turn = 0
    while position < len(wire):
        step = cuts[turn % len(cuts)]
        pieces += taker.feed(wire[position : position + step])
        position, turn = position + step, turn + 1
    assert taker.is_between_frames
    assert all(data for _, data in pieces)
    for number, channel in ((1, Channel.STDOUT), (2, Channel.STDERR)):
        sent = b"".join(data for kind, data in frames if kind == number)
        assert b"".join(data for seen, data in pieces if seen is channel) == sent


def test_an_end_inside_a_frame_is_seen() -> None:
    """A connection that ends in a header or in data has lost something."""
    for part in (b"\x01\0\0", b"\x01\0\0\0\0\0\0\x05abc"):
        taker = Demultiplexer()
        taker.feed(part)
        assert not taker.is_between_frames


def test_bare_words_are_stderr() -> None:
    """An engine that could not start a program says so without a frame; that is not lost."""
    taker = Demultiplexer()
    pieces = taker.feed(b"\x01\0\0\0\0\0\0\x02hi") + taker.feed(b"OCI runtime ") + taker.feed(b"x")
    assert pieces == [
        (Channel.STDOUT, b"hi"),
        (Channel.STDERR, b"OCI runtime "),
        (Channel.STDERR, b"x"),
    ]
    assert taker.is_between_frames


def test_execs() -> None:
    """An exit code counts once the program has ended; before, engines answer 0 or null."""
    assert parse_exec({"Running": True, "ExitCode": None, "Pid": 5}).exit_code is None
    assert parse_exec({"Running": True, "ExitCode": 0, "Pid": 5}).exit_code is None
    assert parse_exec({"Running": False, "ExitCode": 3, "Pid": 5}).exit_code == 3
