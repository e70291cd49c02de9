"""A program opened in a container over the Docker API: one hijacked connection, demultiplexed."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from anyon.domain.errors import (
    ConflictError,
    DeadlineExceededError,
    EngineUnavailableError,
    NotFoundError,
)
from anyon.engines.docker_client import DockerClient
from anyon.engines.docker_errors import RefusedError, failed, message_of, unreachable
from anyon.engines.engine import Channel, TerminalSize

_CALL = timedelta(seconds=20)
_BUFFER = 1 << 20
_PIECE = 1 << 16
_HEADER = 8
_LOOK = 0.25
"""Seconds between looks at a program whose output has not ended; the end is told at once."""
_BEGINNING_LOOKS = 250
_END_OF_TRANSMISSION = b"\x04"


class Demultiplexer:
    """Takes the engine's frames apart: a byte of channel, three of nothing, four of length.

    What does not begin like a frame is the engine's own words about a program that it could not
    start; they are taken as stderr.
    """

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._left = 0
        self._channel = Channel.STDOUT
        self._is_bare = False

    def feed(self, data: bytes) -> list[tuple[Channel, bytes]]:
        """Return the pieces that *data* completes or continues; frames may be cut anywhere."""
        self._waiting += data
        pieces: list[tuple[Channel, bytes]] = []
        while self._waiting:
            if self._is_bare or not self._begins_like_a_frame():
                self._is_bare = True
                pieces.append((Channel.STDERR, bytes(self._waiting)))
                self._waiting.clear()
                break
            if self._left == 0:
                if len(self._waiting) < _HEADER:
                    break
                self._channel = Channel.STDERR if self._waiting[0] == 2 else Channel.STDOUT
                self._left = int.from_bytes(self._waiting[4:_HEADER], "big")
                del self._waiting[:_HEADER]
                continue
            taken = bytes(self._waiting[: self._left])
            del self._waiting[: len(taken)]
            self._left -= len(taken)
            pieces.append((self._channel, taken))
        return pieces

    def _begins_like_a_frame(self) -> bool:
        if self._left:
            return True
        head = self._waiting[:4]
        return head[0] <= 2 and not any(head[1:])

    @property
    def is_between_frames(self) -> bool:
        """Whether the output may end here."""
        return self._left == 0 and not self._waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecState:
    """What the engine says of an exec. ``pid`` is the host's, 0 before its start."""

    running: bool
    exit_code: int | None
    pid: int


def parse_exec(answer: dict[str, Any]) -> ExecState:
    """Read the answer of ``GET /exec/…/json``."""
    code = answer.get("ExitCode")
    running = bool(answer.get("Running"))
    return ExecState(
        running=running,
        exit_code=None if code is None or running else int(code),
        pid=int(answer.get("Pid") or 0),
    )


class DockerStream:
    """Implements ``Stream``. *end_program* ends the program of a pid, by whatever way there is."""

    def __init__(
        self,
        client: DockerClient,
        exec_id: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        terminal: bool,
        end_program: Callable[[int], Awaitable[None]],
    ) -> None:
        self._client = client
        self._id = exec_id
        self._reader = reader
        self._writer = writer
        self._terminal = terminal
        self._end_program = end_program
        self._pieces: deque[tuple[Channel, bytes]] = deque()
        self._held = 0
        self._changed = asyncio.Condition()
        self._ended = False
        self._broken: Exception | None = None
        self._reading = False
        self._dropping = 0
        self._stdin_closed = False
        self._closed = False
        self._code: int | None = None
        self._pump_task = asyncio.create_task(self._pump(), name=f"docker exec {exec_id[:12]}")

    async def read(self) -> tuple[Channel, bytes] | None:
        """Return the next piece, or None at the end."""
        async with self._changed:
            self._reading = True
            try:
                await self._changed.wait_for(lambda: bool(self._pieces) or self._ended)
            finally:
                self._reading = False
            if self._pieces:
                piece = self._pieces.popleft()
                self._held -= len(piece[1])
                self._changed.notify_all()
                return piece
        if self._broken is not None and not self._closed:
            raise unreachable(self._client.address, self._broken) from self._broken
        return None

    async def write(self, data: bytes) -> None:
        """Give *data* to the program."""
        if self._stdin_closed or self._closed or self._ended:
            raise self._no_stdin()
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise self._no_stdin() from error

    async def close_stdin(self) -> None:
        """End stdin: half of the connection, or the terminal's end-of-file character."""
        if self._stdin_closed or self._closed:
            return
        self._stdin_closed = True
        with contextlib.suppress(OSError):  # the program is over: its stdin is closed already
            if self._terminal:
                self._writer.write(_END_OF_TRANSMISSION)
                await self._writer.drain()
            else:
                self._writer.write_eof()

    async def resize(self, size: TerminalSize) -> None:
        """Change the terminal's size."""
        if not self._terminal or self._closed:
            return
        try:
            await self._client.post(
                f"/exec/{self._id}/resize",
                deadline=_CALL,
                query={"h": str(size.rows), "w": str(size.columns)},
            )
        except RefusedError:
            # A program that has just ended has no size; one that runs must take it.
            if (await self._state()).running:
                raise

    async def wait(self) -> int:
        """Return the exit code, dropping what nobody reads."""
        self._dropping += 1
        try:
            async with self._changed:
                self._changed.notify_all()
            while self._code is None:
                state = await self._state()
                if not state.running and state.exit_code is not None:
                    self._code = state.exit_code
                    break
                await self._end_or(_LOOK if not self._ended else 0.02)
        finally:
            self._dropping -= 1
        return self._code

    async def close(self) -> None:
        """Let go, and end the program if it still runs."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._end_if_running()
        finally:
            self._pump_task.cancel()
            await asyncio.gather(self._pump_task, return_exceptions=True)
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
            async with self._changed:
                self._ended = True
                self._changed.notify_all()

    async def _end_if_running(self) -> None:
        if self._code is not None:
            return
        try:
            # An engine that has just accepted a program may not have begun it: wait for its pid.
            for _ in range(_BEGINNING_LOOKS):
                state = await self._state()
                if state.exit_code is not None:
                    return
                if state.pid:
                    await self._end_program(state.pid)
                    return
                await asyncio.sleep(0.02)
        except (EngineUnavailableError, DeadlineExceededError, NotFoundError):
            return  # nothing is known of the program any more, as the interface says

    async def _state(self) -> ExecState:
        try:
            return parse_exec(await self._client.get(f"/exec/{self._id}/json", deadline=_CALL))
        except RefusedError as error:
            if error.status == 404:
                raise EngineUnavailableError(
                    "the Docker engine has forgotten the program: it was started again meanwhile",
                    hint="a durable process keeps its exit code; open another stream",
                ) from error
            raise failed("look at a program", error) from error

    async def _end_or(self, seconds: float) -> None:
        async def ended() -> None:
            async with self._changed:
                await self._changed.wait_for(lambda: self._ended)

        if self._ended:
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended(), seconds)

    async def _pump(self) -> None:
        frames = None if self._terminal else Demultiplexer()
        try:
            while data := await self._reader.read(_PIECE):
                await self._keep(frames.feed(data) if frames else [(Channel.STDOUT, data)])
            if frames is not None and not frames.is_between_frames:
                self._broken = ConnectionResetError("the connection ended in the middle of a frame")
            elif not await self._is_over():
                self._broken = ConnectionResetError("the connection ended before the program")
        except OSError as error:
            self._broken = error
        finally:
            async with self._changed:
                self._ended = True
                self._changed.notify_all()

    async def _keep(self, pieces: list[tuple[Channel, bytes]]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._held < _BUFFER or self._must_drop())
            if self._held >= _BUFFER:
                self._pieces.clear()
                self._held = 0
            self._pieces.extend(pieces)
            self._held += sum(len(data) for _, data in pieces)
            self._changed.notify_all()

    def _must_drop(self) -> bool:
        return self._dropping > 0 and not self._reading

    async def _is_over(self) -> bool:
        # Programs may close their outputs and run on; only an engine that is gone is a break.
        try:
            await self._state()
        except (EngineUnavailableError, DeadlineExceededError):
            return False
        return True

    def _no_stdin(self) -> ConflictError:
        return ConflictError("the program's stdin is closed", code="stdin_closed")


async def hijack(
    client: DockerClient, exec_id: str, *, terminal: TerminalSize | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Start the exec and return its bare connection. Raises RefusedError as the client does."""
    start: dict[str, Any] = {"Detach": False, "Tty": terminal is not None}
    if terminal is not None:
        start["ConsoleSize"] = [
            terminal.rows,
            terminal.columns,
        ]  # ignored by engines before API 1.42
    path = await client.path(f"/exec/{exec_id}/start")
    return await upgraded(client, path, json.dumps(start).encode())


async def upgraded(
    client: DockerClient, path: str, body: bytes
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for *path* and return the connection that becomes bare; errors as ``hijack``."""
    reader, writer = await client.connect()
    try:
        async with asyncio.timeout(_CALL.total_seconds()):
            writer.write(
                f"POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
                f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            await _accepted(head, reader)
    except (OSError, EOFError) as error:
        writer.close()
        if isinstance(error, TimeoutError):
            raise DeadlineExceededError(
                "the Docker engine did not start a program in time",
                hint="the machine may be overloaded; the same call can be repeated",
            ) from error
        raise unreachable(client.address, error) from error
    except BaseException:
        writer.close()
        raise
    return reader, writer


async def _accepted(head: bytes, reader: asyncio.StreamReader) -> None:
    status = int(head.split(b" ", 2)[1])
    if status >= 400:
        raise RefusedError(status, message_of(await _body(head, reader)))


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return await reader.readexactly(int(line.split(b":")[1]))
    return await reader.read(_PIECE)
