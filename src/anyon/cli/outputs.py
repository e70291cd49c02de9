"""Showing a process's two outputs as they come."""

import sys
from typing import TYPE_CHECKING, TextIO
from uuid import UUID

from anyon.cli.printing import Cleaner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyon.sdk.clients import Client
    from anyon.sdk.models import Channel, ExecutionProcess


class Screen:
    """Writes each channel to its own stream: to a terminal made harmless, else byte for byte."""

    def __init__(self) -> None:
        self._cleaners = {"stdout": Cleaner(), "stderr": Cleaner()}

    def show(self, channel: str, data: bytes, *, final: bool = False) -> None:
        """Write a piece."""
        stream: TextIO = sys.stdout if channel == "stdout" else sys.stderr
        if stream.isatty():
            stream.write(self._cleaners[channel].feed(data, final=final))
        else:
            stream.buffer.write(data)
        stream.flush()

    def end(self) -> None:
        """Write what was held back."""
        for channel in self._cleaners:
            self.show(channel, b"", final=True)


async def follow(client: "Client", process: UUID) -> "ExecutionProcess":
    """Show a process's output to its end, over dropped connections, and return it as it ended."""
    screen = Screen()
    async for chunk in client.processes.follow(process):
        if chunk.dropped_bytes:
            note = f"\n[{chunk.dropped_bytes} bytes dropped]\n"
            screen.show(chunk.channel, note.encode())
        screen.show(chunk.channel, chunk.data)
    screen.end()
    return await client.processes.get(process)


async def collect(client: "Client", process: UUID, *, follow: bool) -> dict[str, str]:
    """Return both outputs as text; with *follow* to the process's end, else as they stand."""
    pieces: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
    if follow:
        async for chunk in client.processes.follow(process):
            pieces[chunk.channel].append(chunk.data)
    else:
        for channel in ("stdout", "stderr"):
            async for data in read_all(client, process, channel):
                pieces[channel].append(data)
    return {name: b"".join(parts).decode(errors="replace") for name, parts in pieces.items()}


async def read_all(client: "Client", process: UUID, channel: str) -> "AsyncIterator[bytes]":
    """Yield one output as it stands, without waiting."""
    offset = 0
    name: Channel = "stdout" if channel == "stdout" else "stderr"
    while True:
        chunk = await client.processes.output(process, name, offset=offset, limit=1024 * 1024)
        if not chunk.data:
            return
        yield chunk.data
        offset = chunk.next_offset
