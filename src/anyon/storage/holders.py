"""Which files the programs of a project can write at this moment, without a word to anybody.

A shared mapping is written without a system call, so no journal hears of it and no time of the
file changes until the page is next written back. But the file stays open or mapped all the while,
and its last close is heard. So: what is neither in the journal nor here has not changed.

Not seen: a descriptor that only one thread of a program has (``unshare(CLONE_FILES)``), or that
is on its way through a socket. What is written through those by plain calls is in the journal;
what is written through a mapping of theirs comes with the next checkpoint.
"""

import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
_SHARED = re.compile(
    rb"(?m)^[0-9a-f]+-[0-9a-f]+ .(.).s [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ ([1-9][0-9]*)"
)


@dataclass(frozen=True, slots=True)
class Held:
    """Files by their inode numbers; one that is of another file system does no harm."""

    writable: set[int] = field(default_factory=set)
    """Open for writing, or mapped and shared."""
    mapped: set[int] = field(default_factory=set)
    """Mapped, shared and writable: their times say nothing."""


def held_by(pids: Iterable[int], *, proc: Path = PROC) -> Held | None:
    """Return what these processes (which stand still) hold; None if they do not let us look."""
    held = Held()
    try:
        for pid in pids:
            with suppress(FileNotFoundError, ProcessLookupError):  # it ended: so its files closed
                _look(str(proc / str(pid)), held)
    except PermissionError:
        return None
    return held


def _look(process: str, held: Held) -> None:
    with open(f"{process}/maps", "rb") as file:  # noqa: PTH123 - hundreds of times in a pause
        for writes, inode in _SHARED.findall(file.read()):
            held.writable.add(int(inode))
            if writes == b"w":
                held.mapped.add(int(inode))
    with os.scandir(f"{process}/fd") as links:
        for link in links:
            with suppress(FileNotFoundError):
                if link.stat(follow_symlinks=False).st_mode & stat.S_IWUSR:
                    found = link.stat()
                    if stat.S_ISREG(found.st_mode):
                        held.writable.add(found.st_ino)
