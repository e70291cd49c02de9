"""Keeping an output within its cap: head and tail stay, the middle goes, offsets stay true.

What goes is one range ``[start, end)`` a channel; its start is fixed by the cap and its end
moves on. The range is recorded first and dropped afterwards, so that a reader who looks at the
record after he has read never takes a hole's zeros for output.
"""

import json
from dataclasses import dataclass

from anyon.domain.errors import InvalidInputError
from anyon.engines.engine import Channel
from anyon.processes.directories import ProcessDirectory
from anyon.processes.processes import Chunk

_WHOLE_PIECE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Dropped:
    """The range of a channel that is not kept; empty where ``start == end``."""

    start: int = 0
    end: int = 0

    def __bool__(self) -> bool:
        return self.end > self.start


NOTHING = Dropped()


def next_drop(size: int, dropped: Dropped, cap: int, *, final: bool) -> Dropped | None:
    """Return what is to be dropped of *size* bytes under *cap*, or None while it is well.

    Half the cap is head, half is tail. Before the end a quarter more may pile up, so that a
    stream of small writes is not one of small holes.
    """
    head = cap // 2
    tail = cap - head
    kept = size - (dropped.end - dropped.start)
    if kept <= (cap if final else cap + cap // 4):
        return None
    start = dropped.start if dropped else head
    end = max(size - tail, start)
    return Dropped(start, end) if end > dropped.end else None


def place(offset: int, limit: int, dropped: Dropped) -> tuple[int, int]:
    """Return where a read from *offset* really begins, and how many bytes it may take."""
    if not dropped or offset >= dropped.end:
        return offset, limit
    if offset < dropped.start:
        return offset, min(limit, dropped.start - offset)
    return dropped.end, limit


def dropped_of(directory: ProcessDirectory, channel: Channel) -> Dropped:
    """Return what is recorded as dropped; nothing for a record that is none."""
    file = directory.small(f"dropped.{channel}")
    if file is None or file.content is None:
        return NOTHING
    try:
        start, end = json.loads(file.content)
        if type(start) is int and type(end) is int and 0 <= start <= end < 1 << 63:
            return Dropped(start, end)
    except (ValueError, TypeError):
        pass  # its owner wrote nonsense there: then the holes are his to see
    return NOTHING


def read(
    directory: ProcessDirectory, channel: Channel, offset: int, limit: int
) -> tuple[int, bytes]:
    """Return up to *limit* bytes from *offset* on, and the offset at which they really began."""
    while True:
        before = dropped_of(directory, channel)
        start, length = place(offset, limit, before)
        data = directory.read(channel, start, length)
        after = dropped_of(directory, channel)
        if after == before or place(offset, limit, after) == (start, length):
            return start, data


def trim(directory: ProcessDirectory, channel: Channel, cap: int, *, final: bool) -> bool:
    """Drop what is over the cap; False if the file system cannot give space back."""
    dropped = dropped_of(directory, channel)
    wanted = next_drop(directory.size(channel), dropped, cap, final=final)
    if wanted is None:
        return True
    directory.write(f"dropped.{channel}", json.dumps([wanted.start, wanted.end]).encode())
    return directory.punch(channel, max(dropped.end, wanted.start), wanted.end)


def check_offset(directory: ProcessDirectory, channel: Channel, offset: int) -> None:
    """Raise InvalidInputError (``offset_past_end``) unless there is such an offset, or will be next."""
    size = directory.size(channel)
    if not 0 <= offset <= size:
        raise InvalidInputError(
            f"offset {offset} is not within the {size} bytes of {channel}",
            code="offset_past_end",
            hint="read on from the offset that the last answer gave",
        )


def chunk(directory: ProcessDirectory, channel: Channel, offset: int, limit: int) -> Chunk:
    """Return what there is from *offset* on, up to *limit* bytes."""
    start, data = read(directory, channel, offset, limit)
    return Chunk(channel=channel, offset=start, data=data, dropped_bytes=start - offset)


def whole(directory: ProcessDirectory, channel: Channel) -> bytes:
    """Return all that is kept of a channel."""
    pieces: list[bytes] = []
    offset = 0
    while True:
        piece = chunk(directory, channel, offset, _WHOLE_PIECE_BYTES)
        if not piece.data:
            return b"".join(pieces)
        pieces.append(piece.data)
        offset = piece.next_offset
