"""This terminal, handed to a program in a project's container: raw keys, true size."""

import asyncio
import os
import shutil
import signal
import stat
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from anyon.cli.bars import watched

if TYPE_CHECKING:
    from anyon.sdk.clients import Client
    from anyon.sdk.terminals import Terminal


async def interact(client: "Client", project: UUID, command: str | None, *, quiet: bool) -> int:
    """Connect this terminal to a new one inside until that ends; return its exit code."""
    size = shutil.get_terminal_size()
    async with AsyncExitStack() as stack:
        opening = client.projects.terminal(
            project, columns=size.columns, rows=size.lines, command=command
        )
        call = stack.enter_async_context(opening)
        # Only where its files have to come back first is there anything to see.
        terminal = await watched(client, project, call, words="Waking", quiet=quiet, is_late=True)
        with _raw_keys():
            typing = asyncio.create_task(_type(terminal))
            try:
                with _resizing(terminal):
                    await _show(terminal, quiet=quiet)
            finally:
                typing.cancel()
                await asyncio.gather(typing, return_exceptions=True)
        return terminal.exit_code or 0


async def _show(terminal: "Terminal", *, quiet: bool) -> None:
    while (data := await terminal.read()) is not None:
        if not quiet:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()


async def _type(terminal: "Terminal") -> None:
    keys: asyncio.Queue[bytes] = asyncio.Queue()
    loop, fd = asyncio.get_running_loop(), sys.stdin.fileno()
    if not _can_be_watched(fd):
        await _type_all(terminal, sys.stdin.buffer.read())
        return
    loop.add_reader(fd, lambda: keys.put_nowait(os.read(fd, 65536)))
    try:
        while data := await keys.get():
            await terminal.write(data)
        await terminal.write(b"\x04")  # our own input has ended: so does what is typed inside
    finally:
        loop.remove_reader(fd)


async def _type_all(terminal: "Terminal", data: bytes) -> None:
    for start in range(0, len(data), 65536):  # a frame has a greatest length
        await terminal.write(data[start : start + 65536])
    await terminal.write(b"\x04")


def _can_be_watched(fd: int) -> bool:
    """Say whether the event loop can wait for the file: terminals and pipes, not regular files."""
    return not stat.S_ISREG(os.fstat(fd).st_mode)


@contextmanager
def _raw_keys() -> Iterator[None]:
    """Hand every key on as it is, and put the terminal back as it was."""
    if not sys.stdin.isatty():
        yield
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSADRAIN)  # what was typed ahead is kept
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def _resizing(terminal: "Terminal") -> Iterator[None]:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def tell() -> None:
        size = shutil.get_terminal_size()
        task = asyncio.ensure_future(terminal.resize(size.columns, size.lines))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGWINCH, tell)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
