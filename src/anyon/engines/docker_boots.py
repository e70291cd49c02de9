"""The first program of a container: opened through its first process, without an exec of the engine.

An exec costs some 75 ms, a third of a start. So the first process is a shell that waits for one
program to run, on its own stdin, and holds the container open whether or not that ever comes. Who
starts the container may attach and hand it over; all later programs, and those of a server that
finds the container running, are opened by an exec.
"""

import contextlib
import re
import shlex
from asyncio import StreamReader, StreamWriter

from anyon.domain.errors import ConflictError
from anyon.engines.docker_client import DockerClient
from anyon.engines.docker_errors import unreachable
from anyon.engines.docker_streams import Demultiplexer, upgraded
from anyon.engines.engine import Channel, Command, TerminalSize

LABEL = "dev.anyon.boot"
"""Marks a container whose first process takes a program; older ones have none."""
SHELL = (
    '(if IFS= read -r n && t=$(head -c "$n"); then eval "$t"; else echo missing head; fi); '
    "printf '\\n#over %s#\\n' $?; exec sleep 2147483647 </dev/null"
)
"""Portable to any image: `sleep infinity` is GNU's."""
_OVER = re.compile(rb"\n#over ([0-9]{1,3})#\n$")
"""What the first process says when the program is over: its outputs stay open."""
_PIECE = 1 << 16


def program_text(command: Command) -> bytes:
    """Return what the first process is told: the length of a shell text, and the text."""
    exports = [f"export {name}={shlex.quote(value)}; " for name, value in command.env.items()]
    run = f"cd -- {shlex.quote(str(command.cwd))} && exec {shlex.join(command.argv)}"
    text = ("".join(exports) + run).encode()
    return b"%d\n%s" % (len(text), text)


async def opened(client: DockerClient, container: str, command: Command) -> "BootStream":
    """Run *command* as the first program of a container; RefusedError if it cannot be attached to."""
    query = "stream=1&stdin=1&stdout=1&stderr=1"
    path = await client.path(f"/containers/{container}/attach?{query}")
    reader, writer = await upgraded(client, path, b"")
    try:
        writer.write(program_text(command))
        await writer.drain()
    except OSError as error:
        writer.close()
        raise unreachable(client.address, error) from error
    return BootStream(client, reader, writer)


class BootStream:
    """Implements ``Stream`` for a program that lasts: it is told to end by what it reads.

    The end of its stdin cannot be given, since the container's first process goes on; closing lets
    go of the connection and of nothing else.
    """

    def __init__(self, client: DockerClient, reader: StreamReader, writer: StreamWriter) -> None:
        self._client = client
        self._reader = reader
        self._writer = writer
        self._frames = Demultiplexer()
        self._pieces: list[tuple[Channel, bytes]] = []
        self._tail = b""
        self._code: int | None = None
        self._is_closed = False

    async def read(self) -> tuple[Channel, bytes] | None:
        """Return the next piece; None once the program is over, or stdin was closed on this side."""
        while not self._pieces:
            if self._is_closed or self._code is not None:
                return None
            try:
                data = await self._reader.read(_PIECE)
            except OSError as error:
                raise unreachable(self._client.address, error) from error
            if not data:
                return None
            self._pieces = self._frames.feed(data)
        channel, piece = self._pieces.pop(0)
        if channel is Channel.STDOUT:
            self._tail = (self._tail + piece)[-20:]
            over = _OVER.search(self._tail)
            self._code = int(over[1]) if over else None
        return channel, piece

    async def write(self, data: bytes) -> None:
        """Give *data* to the program."""
        if self._is_closed or self._code is not None or self._reader.at_eof():
            raise _no_stdin()
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise _no_stdin() from error

    async def close_stdin(self) -> None:
        """End this side; the program was told to end before."""
        if not self._is_closed:
            self._is_closed = True
            self._writer.close()  # after what is written; who reads sees the end then

    async def resize(self, size: TerminalSize) -> None:
        """Do nothing: there is no terminal."""

    async def wait(self) -> int:
        """Return the exit code; ConflictError ``exit_unknown`` where nothing said it before the end."""
        while await self.read() is not None:
            pass
        if self._code is None:
            raise ConflictError("nothing is known of the program's end", code="exit_unknown")
        return self._code

    async def close(self) -> None:
        """Let go."""
        self._is_closed = True
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def _no_stdin() -> ConflictError:
    return ConflictError("the program's stdin is closed", code="stdin_closed")
