"""Removing a directory that a stranger filled: no recursion, no link followed, any mode."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Level:
    """A directory on the way down: its name above, who it is, and its directories left to remove."""

    name: str
    identity: tuple[int, int]
    left: list[str]


def remove_tree(path: Path) -> None:
    """Remove *path* and what is below it; absent is success.

    Directories without permissions (an overlay's work directory has none) are given them first.
    Depth is no matter: one directory is open at a time, and the way back up is checked to lead
    where it came from. Nothing else may be writing there. Raises OSError for what cannot be removed.
    """
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(kind):
        path.unlink()
        return
    _empty(_open_directory(None, str(path)))
    path.rmdir()


def _empty(here: int) -> None:
    """Remove all below the directory *here*, and close it."""
    levels = [_Level("", _identity(here), _clear(here))]
    try:
        while True:
            level = levels[-1]
            if level.left:
                name = level.left.pop()
                inner = _open_directory(here, name)
                os.close(here)
                here = inner
                levels.append(_Level(name, _identity(here), _clear(here)))
                continue
            levels.pop()
            if not levels:
                return
            parent = os.open("..", _OPEN, dir_fd=here)
            os.close(here)
            here = parent
            if _identity(here) != levels[-1].identity:
                raise OSError(f"directory {level.name!r} was moved while it was removed")
            os.rmdir(level.name, dir_fd=here)
    finally:
        os.close(here)


def _clear(here: int) -> list[str]:
    """Remove what is no directory, and return the names of the directories."""
    os.fchmod(here, 0o700)
    left = []
    with os.scandir(here) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                left.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=here)
    return left


def _identity(directory: int) -> tuple[int, int]:
    found = os.fstat(directory)
    return found.st_dev, found.st_ino


def _open_directory(parent: int | None, name: str) -> int:
    try:
        return os.open(name, _OPEN, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, _OPEN, dir_fd=parent)
