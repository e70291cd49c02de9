"""A stream that holds its project awake until it is closed."""

from contextlib import AbstractAsyncContextManager

from anyon.domain.entities import Lease
from anyon.engines.engine import Channel, Stream, TerminalSize


class HeldStream:
    """A Stream that passes everything on, and gives its lease back at its close."""

    def __init__(self, stream: Stream, hold: AbstractAsyncContextManager[Lease]) -> None:
        self._stream = stream
        self._hold: AbstractAsyncContextManager[Lease] | None = hold

    async def read(self) -> tuple[Channel, bytes] | None:
        """See Stream."""
        return await self._stream.read()

    async def write(self, data: bytes) -> None:
        """See Stream."""
        await self._stream.write(data)

    async def close_stdin(self) -> None:
        """See Stream."""
        await self._stream.close_stdin()

    async def resize(self, size: TerminalSize) -> None:
        """See Stream."""
        await self._stream.resize(size)

    async def wait(self) -> int:
        """See Stream."""
        return await self._stream.wait()

    async def close(self) -> None:
        """See Stream; then the project may sleep."""
        hold, self._hold = self._hold, None
        try:
            await self._stream.close()
        finally:
            if hold is not None:
                await hold.__aexit__(None, None, None)
