"""A terminal's stream: it holds its project awake while somebody types, and no longer."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

from anyon.clock import Clock
from anyon.domain.entities import Lease
from anyon.domain.errors import ConflictError
from anyon.engines.engine import Channel, Stream, TerminalSize

Hold = AbstractAsyncContextManager[Lease]


class HeldStream:
    """A Stream that passes everything on, with a lease while there was input in the last *awake_for*.

    Output is no activity. Without a lease the project may be frozen: the next input thaws it and
    goes on. It may be stopped too: then ``read`` and ``write`` raise ConflictError
    ``project_stopped``, where *is_stopped* says so. Run ``watch`` beside it until its close.
    """

    def __init__(
        self,
        stream: Stream,
        held: Hold,
        *,
        new_hold: Callable[[], Hold],
        is_stopped: Callable[[], Awaitable[bool]],
        clock: Clock,
        awake_for: timedelta,
    ) -> None:
        self._stream = stream
        self._held: Hold | None = held
        self._new_hold = new_hold
        self._is_stopped = is_stopped
        self._clock = clock
        self._awake_for = awake_for.total_seconds()
        self._typed_at = clock.monotonic()
        self._typed = asyncio.Event()
        self._changing = asyncio.Lock()
        self._size: TerminalSize | None = None
        self._is_closed = False

    async def watch(self) -> None:
        """Give the lease back whenever nothing was typed for long enough, until the stream is closed."""
        while not self._is_closed:
            left = self._typed_at + self._awake_for - self._clock.monotonic()
            if left > 0:
                await self._clock.sleep(timedelta(seconds=left))
                continue
            self._typed.clear()
            async with self._changing:
                # Typed while this waited: the lease is wanted on.
                if self._typed_at + self._awake_for <= self._clock.monotonic():
                    await self._let_go()
            await self._typed.wait()

    async def read(self) -> tuple[Channel, bytes] | None:
        """See Stream."""
        piece = await self._stream.read()
        if piece is None and not self._is_closed:
            await self._check_stopped()
        return piece

    async def write(self, data: bytes) -> None:
        """See Stream; it is activity, and wakes a project that was frozen meanwhile."""
        await self._wake()
        await self._stream.write(data)

    async def _wake(self) -> None:
        self._typed_at = self._clock.monotonic()
        async with self._changing:
            if self._held is None and not self._is_closed:
                await self._check_stopped()
                hold = self._new_hold()
                await hold.__aenter__()
                self._held = hold
                size, self._size = self._size, None
                if size is not None:
                    await self._stream.resize(size)
        self._typed.set()

    async def close_stdin(self) -> None:
        """See Stream."""
        await self._wake()
        await self._stream.close_stdin()

    async def resize(self, size: TerminalSize) -> None:
        """See Stream; where the project may be frozen it comes with the next input."""
        async with self._changing:
            if self._held is None:
                self._size = size
            else:
                await self._stream.resize(size)

    async def wait(self) -> int:
        """See Stream."""
        return await self._stream.wait()

    async def close(self) -> None:
        """See Stream; then the project may sleep."""
        self._is_closed = True
        self._typed.set()
        try:
            await self._stream.close()
        finally:
            async with self._changing:
                await self._let_go()

    async def _let_go(self) -> None:
        hold, self._held = self._held, None
        if hold is not None:
            await hold.__aexit__(None, None, None)

    async def _check_stopped(self) -> None:
        if await self._is_stopped():
            raise ConflictError(
                "the project was stopped, and its terminals with it",
                code="project_stopped",
                hint="Open another; that wakes it.",
            )
