"""Trees of files that a stranger made: copied in and deleted without ever following a link.

All names are taken relative to directories that are already open, so what is swapped meanwhile is
not followed; no depth makes them fail; special files are refused or removed, never opened.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from anyon.domain.errors import InvalidInputError, UnavailableError

DEPTH_LIMIT = 200
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE = 16 * 1024 * 1024
Owner = tuple[int, int]
Order = Callable[[tuple[str, ...], list[str]], list[str]]
"""Which names of a directory are copied, in which order."""


def copy_repository(source: Path, target: Path, *, owner: Owner | None = None) -> None:
    """Copy the work tree *source* with its ``.git`` into the empty directory *target*.

    In ``.git`` references go before objects, so that a repository that is written to meanwhile
    still comes out whole; records of its other worktrees stay behind, since they name places that
    are not in the copy. Modes and times are kept, links stay links. InvalidInputError:
    ``special_file``, ``tree_too_deep``, ``path_unreadable``; UnavailableError: ``disk_full``.
    """
    _copy_explained(source, target, owner, _without_worktrees)


def copy_tree(source: Path, target: Path, *, owner: Owner | None = None) -> None:
    """Copy all of *source* into the empty directory *target*; errors as ``copy_repository``."""
    _copy_explained(source, target, owner, _all_of)


def _copy_explained(source: Path, target: Path, owner: Owner | None, order: Order) -> None:
    try:
        _copy(source, target, owner, order)
    except OSError as error:
        raise explained(error, f"copying {source}") from error


# EINVAL: what was a link when it was looked at is none any more when it is read.
_UNREADABLE = frozenset(
    {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.EINVAL}
)


def explained(error: OSError, what: str) -> InvalidInputError | UnavailableError:
    """Return the error to raise for *error*, which came while doing *what*."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return UnavailableError(
            f"the disk is full ({what})",
            code="disk_full",
            hint="Free some space on the disk that holds Anyon's home, and try again.",
        )
    if error.errno in _UNREADABLE:
        name = os.fsdecode(error.filename or b"")
        return InvalidInputError(
            f"{what}: {name or 'a file'} cannot be read ({error.strerror})", code="path_unreadable"
        )
    return UnavailableError(f"{what} failed: {error}", code="file_system_failed")


class _Level:
    """One directory on the way down: its two open ends, and what is still to do in it."""

    def __init__(self, source: int, target: int, path: tuple[str, ...], order: Order) -> None:
        self.source = source
        self.target = target
        self.path = path
        self.order = order
        self.names = iter(order(path, os.listdir(source)))

    def close(self) -> None:
        os.close(self.source)
        os.close(self.target)


def _all_of(path: tuple[str, ...], names: list[str]) -> list[str]:
    """Order names: in ``.git`` objects last, and ``.git`` after the files."""
    last = "objects" if path == (".git",) else "" if path else ".git"
    return sorted(names, key=lambda name: (name == last, name))


def _without_worktrees(path: tuple[str, ...], names: list[str]) -> list[str]:
    if path == (".git",):
        names = [name for name in names if name != "worktrees"]
    return _all_of(path, names)


def _copy(source: Path, target: Path, owner: Owner | None, order: Order) -> None:
    levels = [_Level(os.open(source, _DIRECTORY), os.open(target, _DIRECTORY), (), order)]
    try:
        while levels:
            level = levels[-1]
            name = next(level.names, None)
            if name is None:
                _finish(levels.pop(), owner)
                continue
            below = _copy_entry(level, name, owner)
            if below is not None:
                levels.append(below)
                if len(levels) > DEPTH_LIMIT:
                    raise InvalidInputError(
                        f"directories are more than {DEPTH_LIMIT} deep", code="tree_too_deep"
                    )
    finally:
        for level in levels:
            level.close()


def _finish(level: _Level, owner: Owner | None) -> None:
    found = os.fstat(level.source)
    os.fchmod(level.target, stat.S_IMODE(found.st_mode) & 0o777 | 0o700)
    if owner is not None:
        os.fchown(level.target, *owner)
    os.utime(level.target, ns=(found.st_atime_ns, found.st_mtime_ns))
    level.close()


def _copy_entry(level: _Level, name: str, owner: Owner | None) -> _Level | None:
    mode = os.stat(name, dir_fd=level.source, follow_symlinks=False).st_mode
    if stat.S_ISDIR(mode):
        source = os.open(name, _DIRECTORY, dir_fd=level.source)
        try:
            os.mkdir(name, 0o700, dir_fd=level.target)
            target = os.open(name, _DIRECTORY, dir_fd=level.target)
        except BaseException:
            os.close(source)
            raise
        return _Level(source, target, (*level.path, name), level.order)
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(name, dir_fd=level.source), name, dir_fd=level.target)
        if owner is not None:
            os.chown(name, *owner, dir_fd=level.target, follow_symlinks=False)
        return None
    if not stat.S_ISREG(mode):
        raise _special(level, name)
    _copy_file(level, name, owner)
    return None


def _special(level: _Level, name: str) -> InvalidInputError:
    return InvalidInputError(
        f"{'/'.join((*level.path, name))!r} is a device, a pipe or a socket",
        code="special_file",
        hint="Remove it from the directory and try again.",
    )


def _copy_file(level: _Level, name: str, owner: Owner | None) -> None:
    source = os.open(name, _FILE, dir_fd=level.source)
    try:
        found = os.fstat(source)
        if not stat.S_ISREG(found.st_mode):  # swapped since it was looked at
            raise _special(level, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(name, flags, 0o600, dir_fd=level.target)
        try:
            while os.sendfile(target, source, None, _PIECE):
                pass
            os.fchmod(target, stat.S_IMODE(found.st_mode) & 0o777)
            if owner is not None:
                os.fchown(target, *owner)
            os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
        finally:
            os.close(target)
    finally:
        os.close(source)


def delete(path: Path) -> None:
    """Delete whatever is at *path*, of any depth; absent is success. Nothing outside is touched.

    Directories below are first moved up to the top, one by one, so that depth costs nothing.
    It may be broken off at any point and called again.
    """
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
            raise
        path.unlink(missing_ok=True)
        return
    try:
        os.fchmod(top, 0o700)
        fresh = _fresh_names()
        while _empty_once(top, fresh):
            pass
    finally:
        os.close(top)
    path.rmdir()


def _fresh_names() -> Iterator[str]:
    number = 0
    while True:
        yield f".anyon-{os.getpid()}-{number}"
        number += 1


def _empty_once(top: int, fresh: Iterator[str]) -> bool:
    """Remove what is in *top*, its directories' content going up; say whether anything was there."""
    names = os.listdir(top)
    for name in names:
        if not _unlinked(name, top):
            _opened_up(name, top)
            _lift(name, top, fresh)
    return bool(names)


def _unlinked(name: str, directory: int) -> bool:
    try:
        os.unlink(name, dir_fd=directory)
    except (IsADirectoryError, PermissionError):
        return False
    return True


def _opened_up(name: str, directory: int) -> None:
    """Give ourselves the right to empty a directory whose owner took it away."""
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            raise PermissionError(errno.EPERM, "cannot be removed", name)
        Path(f"/proc/self/fd/{handle}").chmod(0o700)
    finally:
        os.close(handle)


def _lift(name: str, top: int, fresh: Iterator[str]) -> None:
    directory = os.open(name, _DIRECTORY, dir_fd=top)
    try:
        for below in os.listdir(directory):  # noqa: PTH208 - a path would not be the open directory
            if not _unlinked(below, directory):
                _opened_up(below, directory)
                _move_up(below, directory, top, fresh)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=top)


def _move_up(name: str, directory: int, top: int, fresh: Iterator[str]) -> None:
    while True:
        try:
            os.rename(name, next(fresh), src_dir_fd=directory, dst_dir_fd=top)
        except OSError as error:  # a tenant may have a directory of that name: take the next
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise
        else:
            return
