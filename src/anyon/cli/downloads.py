"""Files and archives from checkpoints onto this machine: whole or not there, and resumed where they broke off."""

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from anyon.cli.bars import Bar
from anyon.sdk.connections import wait_before_retry
from anyon.sdk.errors import ApiError, UnreachableError

if TYPE_CHECKING:
    from uuid import UUID

    from anyon.sdk.clients import Client

_TRIES = 8


def local_name(path: str, *, is_archive: bool) -> str:
    """Return what to call a download of *path*; ValueError if its name is none for a file here."""
    name = os.fsdecode(unquote_to_bytes(path.rpartition("/")[2]))
    if name in {"", ".", ".."}:
        name = "project" if is_archive and not path else ""
    if not name or "/" in name or "\0" in name:
        raise ValueError("its name cannot be used for a file here; give one with --output")
    return f"{name}.tar" if is_archive else name


async def fetch(
    client: "Client", where: "tuple[UUID, str]", path: str, target: Path, shown: Bar
) -> int:
    """Download a file to *target* by way of ``<target>.part-…``; return its size.

    What an earlier try left there is gone on from, if it is of the same content.
    """
    start, mark, part = _left(target)
    for tries in range(_TRIES):
        try:
            async with client.checkpoints.file(*where, path, start=start, mark=mark) as found:
                wanted = target.with_name(f"{target.name}.part-{found.mark}")
                if part is not None and part != wanted:
                    part.unlink()
                mark, part = found.mark, wanted
                with part.open("r+b" if part.exists() else "w+b") as file:
                    file.truncate(found.start)
                    file.seek(found.start)
                    async for piece in found.pieces:
                        file.write(piece)
                        shown.show(file.tell(), found.size_bytes)
                    start = file.tell()
                    if start == found.size_bytes:
                        file.flush()
                        os.fsync(file.fileno())
                        part.rename(target)
                        return start
        except UnreachableError:
            if tries == _TRIES - 1:
                raise
        except ApiError as error:
            if error.status != 416 or part is None:
                raise
            part.unlink()  # more than there is: it was another content's
        await wait_before_retry(tries)
        start, mark, part = _left(target)
    raise UnreachableError(client.base_url, "the download broke off again and again")


async def fetch_archive(
    client: "Client", where: "tuple[UUID, str]", path: str, target: Path, shown: Bar
) -> int:
    """Download a directory as a tar archive to *target*; return its size. It cannot be resumed."""
    part = target.with_name(f"{target.name}.part")
    async with client.checkpoints.archive(*where, path) as found:
        try:
            with part.open("wb") as file:
                async for piece in found.pieces:
                    file.write(piece)
                    shown.show(file.tell(), None)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)
    return size


def _left(target: Path) -> tuple[int, str, Path | None]:
    """Return how much of an earlier try there is, its content's mark, and where."""
    prefix = f"{target.name}.part-"
    for one in target.parent.iterdir():
        if one.name.startswith(prefix) and one.is_file():
            return one.stat().st_size, one.name.removeprefix(prefix), one
    return 0, "", None
