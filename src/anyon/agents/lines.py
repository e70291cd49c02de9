"""Cutting an agent's output into lines and characters, wherever its pieces end."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass

LINE_LIMIT_BYTES = 8 * 1024 * 1024
"""A line longer than this is not read as an event: its head is shown, its length is told."""
KEPT_BYTES = 64 * 1024
"""How much of the head of such a line is kept."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its end. ``left_out_bytes`` of it were too many to keep."""

    text: str
    left_out_bytes: int = 0


class LineSplitter:
    """Turns pieces of bytes into whole lines; memory is bounded by LINE_LIMIT_BYTES."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._left_out = 0

    def feed(self, data: bytes) -> Iterator[Line]:
        """Yield the lines that *data* completes."""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._hold(data[start:end])
            yield self._take()
            start = end + 1
        self._hold(data[start:])

    def finish(self) -> Line | None:
        """Return what stands after the last line's end, or None if that is nothing."""
        return self._take() if self._held or self._left_out else None

    def _hold(self, data: bytes) -> None:
        if self._left_out:
            self._left_out += len(data)
            return
        self._held += data
        if len(self._held) > LINE_LIMIT_BYTES:
            self._left_out = len(self._held) - KEPT_BYTES
            del self._held[KEPT_BYTES:]

    def _take(self) -> Line:
        line = Line(self._held.decode("utf-8", "replace").removesuffix("\r"), self._left_out)
        self._held.clear()
        self._left_out = 0
        return line


class CharacterDecoder:
    """Turns pieces of bytes into text: a cut character waits for its rest, a wrong one is U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> str:
        """Return the characters that *data* completes."""
        return self._decoder.decode(data)

    def finish(self) -> str:
        """Return what a cut character at the end stands for."""
        return self._decoder.decode(b"", final=True)
