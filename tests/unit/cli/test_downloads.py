"""Downloads on this machine: gone on with where they broke off, whole or not there, named harmlessly."""

import asyncio
import os
import re
from pathlib import Path
from uuid import UUID

import pytest

from anyon.cli.bars import bar
from anyon.cli.downloads import fetch, local_name
from anyon.sdk.clients import Client

PROJECT = UUID("00000000-0000-4000-8000-000000000042")


class CutServer:
    """An HTTP server that breaks each of its first answers off in the middle."""

    def __init__(self, content: bytes, cuts: int) -> None:
        self.content = content
        self.cuts = cuts
        self.asked: list[int] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request for the file."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        found = re.search(r"range: bytes=(\d+)-", head, re.IGNORECASE)
        start = int(found[1]) if found else 0
        self.asked.append(start)
        rest = self.content[start:]
        lines = [
            "HTTP/1.1 206 Partial Content" if start else "HTTP/1.1 200 OK",
            f"Content-Length: {len(rest)}",
            'ETag: "mark"',
            "Connection: close",
        ]
        if start:
            end = len(self.content)
            lines.append(f"Content-Range: bytes {start}-{end - 1}/{end}")
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        if self.cuts > 0:
            self.cuts -= 1
            rest = rest[: len(rest) // 2]
        writer.write(rest)
        await writer.drain()
        writer.close()


async def test_a_download_that_breaks_off_goes_on(tmp_path: Path) -> None:
    """Each try begins where the last one ended; the file appears when it is whole, and nothing else is left."""
    server = CutServer(os.urandom(400_000), cuts=2)
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    target = tmp_path / "file"
    async with Client(f"http://127.0.0.1:{port}") as client:
        with bar("x", quiet=True) as shown:
            size = await fetch(client, (PROJECT, "c"), "workspace/file", target, shown)
    listening.close()
    await listening.wait_closed()
    assert size == 400_000
    assert target.read_bytes() == server.content
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    assert server.asked == [0, 200_000, 300_000]


async def test_what_an_earlier_run_left_is_used(tmp_path: Path) -> None:
    """A part of the same content is gone on with by another run of the command."""
    server = CutServer(os.urandom(1000), cuts=0)
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    (tmp_path / "file.part-mark").write_bytes(server.content[:400])
    async with Client(f"http://127.0.0.1:{port}") as client:
        with bar("x", quiet=True) as shown:
            await fetch(client, (PROJECT, "c"), "workspace/file", tmp_path / "file", shown)
    listening.close()
    await listening.wait_closed()
    assert (tmp_path / "file").read_bytes() == server.content
    assert server.asked == [400]


@pytest.mark.parametrize(
    ("path", "is_archive", "name"),
    [
        ("workspace/a b", False, "a b"),
        ("workspace/%FF", False, os.fsdecode(b"\xff")),
        ("workspace", True, "workspace.tar"),
        ("", True, "project.tar"),
    ],
)
def test_names_of_downloads(path: str, is_archive: bool, name: str) -> None:
    """A download is called as the file is, whatever its bytes."""
    assert local_name(path, is_archive=is_archive) == name


@pytest.mark.parametrize("path", ["workspace/..", "workspace/%2E%2E", "workspace/a%2Fb", "a/%00"])
def test_a_name_that_leads_elsewhere_is_refused(path: str) -> None:
    """Whatever a server calls a file: nothing is written outside of where the user is."""
    with pytest.raises(ValueError, match="--output"):
        local_name(path, is_archive=False)
