"""Streams of a host process: three pipes or one terminal, read without a buffer in between.

A reader that does not read holds the program back, as a pipe does; nothing is queued here, save
what ``wait`` had to take out of the pipes so that the program could end.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import struct
import subprocess
import termios
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from anyon.domain.errors import ConflictError
from anyon.engines.engine import Channel, TerminalSize

_PIECE = 65536
_KEPT_BYTES = 1 << 20
"""How much of unread output ``wait`` keeps for a reader that may still come."""
_END_OF_FILE = b"\x04"
_GRACE = 1.0
_PATIENCE = 5.0


def set_terminal_size(terminal: int, size: TerminalSize) -> None:
    """Tell a terminal how large it is."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0))


class ProcessStream:
    """A stream over a host process that stands for a program inside.

    *outputs* maps descriptors to channels; *stdin* is one of them on a terminal. *end* sends a
    signal to the program itself, which is another process than the one waited for.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        *,
        stdin: int,
        outputs: dict[int, Channel],
        end: Callable[[signal.Signals], None],
    ) -> None:
        self._process = process
        self._outputs = outputs
        self._stdin: int | None = stdin
        self._terminal = stdin if stdin in outputs else None
        self._end = end
        self._kept: deque[tuple[Channel, bytes]] = deque()
        self._kept_bytes = 0
        self._readable: asyncio.Future[None] | None = None
        self._writing = asyncio.Lock()
        self._over = False
        self._exit = asyncio.get_running_loop().create_task(
            _exit_code(process, os.pidfd_open(process.pid))
        )
        for descriptor in {stdin, *outputs}:
            os.set_blocking(descriptor, False)

    async def read(self) -> tuple[Channel, bytes] | None:
        """Return the next piece of output, or None at the end of all outputs."""
        while True:
            if self._kept:
                piece = self._kept.popleft()
                self._kept_bytes -= len(piece[1])
                return piece
            if not self._outputs or self._over:
                return None
            if (taken := self._take()) is not None:
                return taken
            if self._outputs:
                await asyncio.wait({self._until_readable()})

    async def write(self, data: bytes) -> None:
        """Give *data* to the program, waiting while it takes none."""
        async with self._writing:
            rest = memoryview(data)
            while rest:
                if self._stdin is None:
                    raise ConflictError("the program's stdin is closed", code="stdin_closed")
                try:
                    rest = rest[os.write(self._stdin, rest[:_PIECE]) :]
                except BlockingIOError:
                    await self._until_writable(self._stdin)
                except OSError as error:
                    if error.errno not in (errno.EPIPE, errno.EIO):
                        raise
                    self._close_pipe()
                    raise ConflictError(
                        "the program closed its stdin", code="stdin_closed"
                    ) from error

    async def close_stdin(self) -> None:
        """End the program's stdin; on a terminal an end of file is typed."""
        if self._stdin is None:
            return
        if self._terminal is not None:
            with contextlib.suppress(ConflictError):
                await self.write(_END_OF_FILE)
            return
        async with self._writing:
            self._close_pipe()

    async def resize(self, size: TerminalSize) -> None:
        """Change the terminal's size; without one do nothing."""
        if self._terminal is not None and not self._over:
            set_terminal_size(self._terminal, size)

    async def wait(self) -> int:
        """Return the exit code; output that nobody reads is taken away so that it can come."""
        while not self._exit.done():
            waited: set[asyncio.Future[Any]] = {self._exit}
            if self._outputs and not self._over:
                waited.add(self._until_readable())
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not self._exit.done() and (piece := self._take()) is not None:
                self._keep(piece)
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        """Close the pipes and end the program if it still runs."""
        if self._over:
            return
        self._over = True
        self._kept.clear()
        self._forget_readable()
        try:
            await self._end_program()
        finally:
            for descriptor in list(self._outputs):
                self._close_output(descriptor)
            self._stdin = None

    async def _end_program(self) -> None:
        if self._stdin is not None and self._terminal is None:
            self._close_pipe()
        if not self._exit.done():
            self._end(signal.SIGTERM)
            self._end(signal.SIGHUP)
            await asyncio.wait({self._exit}, timeout=_GRACE)
        if not self._exit.done():
            self._end(signal.SIGKILL)
            # A frozen program dies when it is thawed; nobody has to wait for that.
            await asyncio.wait({self._exit}, timeout=_PATIENCE)

    def _keep(self, piece: tuple[Channel, bytes]) -> None:
        self._kept.append(piece)
        self._kept_bytes += len(piece[1])
        while self._kept_bytes > _KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft()[1])

    def _take(self) -> tuple[Channel, bytes] | None:
        for descriptor, channel in list(self._outputs.items()):
            try:
                data = os.read(descriptor, _PIECE)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno != errno.EIO:  # EIO: the last one let go of the terminal
                    raise
                data = b""
            if data:
                # The other output comes first next time: neither starves.
                self._outputs[descriptor] = self._outputs.pop(descriptor)
                return channel, data
            self._close_output(descriptor)
        return None

    def _close_pipe(self) -> None:
        if self._stdin is not None and self._terminal is None:
            asyncio.get_running_loop().remove_writer(self._stdin)
            os.close(self._stdin)
        self._stdin = None

    def _close_output(self, descriptor: int) -> None:
        self._forget_readable()
        del self._outputs[descriptor]
        if descriptor == self._terminal:
            self._stdin = None
            self._terminal = None
        os.close(descriptor)

    def _until_readable(self) -> asyncio.Future[None]:
        if self._readable is None:
            loop = asyncio.get_running_loop()
            self._readable = loop.create_future()
            for descriptor in self._outputs:
                loop.add_reader(descriptor, self._forget_readable)
        return self._readable

    def _forget_readable(self) -> None:
        """Wake who waits for output; they look for themselves."""
        if self._readable is None:
            return
        loop = asyncio.get_running_loop()
        for descriptor in self._outputs:
            loop.remove_reader(descriptor)
        _settle(self._readable)
        self._readable = None

    async def _until_writable(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        writable: asyncio.Future[None] = loop.create_future()
        loop.add_writer(descriptor, _settle, writable)
        try:
            ends: set[asyncio.Future[Any]] = {writable, self._exit}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_writer(descriptor)
        if not writable.done():  # the program is over, and something else holds its stdin
            self._close_pipe()
            raise ConflictError("the program is over", code="stdin_closed")


_abandoned: set[asyncio.Task[None]] = set()


async def opened(entering: Awaitable[Callable[[], ProcessStream]]) -> ProcessStream:
    """Return the stream of what *entering* starts; if the caller goes away, end what it started."""
    started = asyncio.ensure_future(entering)
    try:
        make = await asyncio.shield(started)
    except asyncio.CancelledError:
        started.add_done_callback(_abandon)
        raise
    return make()


def _abandon(started: asyncio.Future[Callable[[], ProcessStream]]) -> None:
    if started.cancelled() or started.exception() is not None:
        return
    closing = asyncio.get_running_loop().create_task(started.result()().close())
    _abandoned.add(closing)
    closing.add_done_callback(_abandoned.discard)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _exit_code(process: subprocess.Popen[bytes], descriptor: int) -> int:
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _settle, over)
    try:
        await over
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    code = process.wait()
    return 128 - code if code < 0 else code
