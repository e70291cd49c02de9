"""Removing a directory that a stranger filled: no recursion, no link followed, any mode."""

import os
import stat
from pathlib import Path

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Remove *path* and what is below it; absent is success.

    Directories without permissions (an overlay's work directory has none) are given them first.
    Depth is no matter: sub-directories are moved up to the top before they are emptied, so that
    one level is all that is ever open. Raises OSError for what cannot be removed.
    """
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(kind):
        path.unlink()
        return
    top = _open_directory(None, str(path))
    try:
        _empty(top)
    finally:
        os.close(top)
    path.rmdir()


def _open_directory(parent: int | None, name: str) -> int:
    try:
        return os.open(name, _OPEN, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, _OPEN, dir_fd=parent)


def _empty(top: int) -> None:
    os.fchmod(top, 0o700)
    moved = 0
    while names := os.listdir(top):
        for name in names:
            if not _unlink(top, name):
                moved = _flatten(top, name, moved)


def _flatten(top: int, name: str, moved: int) -> int:
    """Remove one directory of the top, after moving its own directories to the top."""
    here = _open_directory(top, name)
    try:
        os.fchmod(here, 0o700)
        for inner in os.listdir(here):  # noqa: PTH208 - of a descriptor
            if _unlink(here, inner):
                continue
            # A directory is renamed only by who may write it: its ".." changes.
            os.chmod(inner, 0o700, dir_fd=here)
            moved = _move(here, inner, top, moved)
    finally:
        os.close(here)
    os.rmdir(name, dir_fd=top)
    return moved


def _move(here: int, inner: str, top: int, moved: int) -> int:
    while True:
        moved += 1
        target = f".removing-{moved}"
        try:
            os.stat(target, dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(inner, target, src_dir_fd=here, dst_dir_fd=top)
            return moved


def _unlink(parent: int, name: str) -> bool:
    """Remove what is no directory; say whether it was."""
    if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        return False
    os.unlink(name, dir_fd=parent)
    return True
