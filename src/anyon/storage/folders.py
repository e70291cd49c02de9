"""Directories by descriptor: no path is ever followed through a symbolic link.

A ``Folder`` knows its parent and its name, so a tree of any depth is walked with a
bounded number of descriptors, and without a path longer than the kernel takes.
"""

import ctypes
import errno
import os
from collections import OrderedDict
from pathlib import Path

from anyon.domain.errors import InvalidInputError

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
MAX_DEPTH = 50_000
_EXCHANGE = 2
_ANCHOR = 64
_ANCHORS = 256
_KEPT = 96
_ALL = os.R_OK | os.W_OK | os.X_OK


class Folder:
    """A directory somewhere below a root."""

    __slots__ = ("depth", "name", "parent")

    def __init__(self, parent: "Folder | None", name: bytes) -> None:
        self.parent = parent
        self.name = name
        self.depth: int = 0 if parent is None else parent.depth + 1
        if self.depth > MAX_DEPTH:
            raise InvalidInputError(
                f"the tree is deeper than {MAX_DEPTH} directories", code="tree_too_deep"
            )

    def path(self) -> bytes:
        """Return the path below the root, for people; the root's is empty."""
        parts = []
        folder: Folder | None = self
        while folder is not None and folder.parent is not None:
            parts.append(folder.name)
            folder = folder.parent
        return b"/".join(reversed(parts))


class Descriptors:
    """Open descriptors of folders below *root*: the latest used, and one of every 64 levels.

    A miss opens at most a run of 64 (in the deepest trees once more), and the run stays open
    for the way back up. Not for use by several threads at once.
    """

    def __init__(self, root: bytes) -> None:
        self._root = os.open(root, OPEN_FOLDER)
        self._recent: OrderedDict[Folder, int] = OrderedDict()
        self._anchors: dict[Folder, int] = {}

    def fd(self, folder: Folder) -> int:
        """Return a descriptor of *folder*, owned by this; valid until the next call."""
        chain: list[Folder] = []
        at = folder
        while (found := self._find(at)) is None:
            chain.append(at)
            if at.parent is None:
                raise ValueError("a folder without a root")
            at = at.parent
        for step in reversed(chain):
            found = os.open(step.name, OPEN_FOLDER, dir_fd=found)
            self._keep(step, found)
        return found

    def drop(self, folder: Folder) -> None:
        """Close the descriptor of *folder*, if there is one."""
        for kept in (self._recent, self._anchors):
            if folder in kept:
                os.close(kept.pop(folder))

    def close(self) -> None:
        """Close all descriptors."""
        for fd in (*self._recent.values(), *self._anchors.values(), self._root):
            os.close(fd)
        self._recent.clear()
        self._anchors.clear()

    def _find(self, folder: Folder) -> int | None:
        if folder.parent is None:
            return self._root
        if folder in self._recent:
            self._recent.move_to_end(folder)
            return self._recent[folder]
        return self._anchors.get(folder)

    def _keep(self, folder: Folder, fd: int) -> None:
        if folder.depth % _ANCHOR == 0:
            if len(self._anchors) >= _ANCHORS:
                os.close(self._anchors.pop(next(iter(self._anchors))))
            self._anchors[folder] = fd
            return
        if len(self._recent) >= _KEPT:
            os.close(self._recent.popitem(last=False)[1])
        self._recent[folder] = fd


def sync_file_system(fd: int) -> None:
    """Return when everything written to the file system of *fd* is durable, or raise OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def exchange(name: bytes, *, one: int, other: int) -> bool:
    """Let what is called *name* in two open directories change places, in one step.

    False where the file system cannot, or the kernel. FileNotFoundError if one is not there.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(one, name, other, name, _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in {errno.EINVAL, errno.ENOSYS}:
        return False
    raise OSError(number, os.strerror(number))


def remove_tree(path: bytes) -> None:
    """Delete a tree of any depth that nobody else writes to; nothing there is no error."""
    try:
        descriptors = Descriptors(path)
    except FileNotFoundError:
        return
    try:
        waiting: list[tuple[Folder, bool]] = [(Folder(None, b""), False)]
        while waiting:
            folder, emptied = waiting.pop()
            if emptied:
                descriptors.drop(folder)
                if folder.parent is not None:
                    os.rmdir(folder.name, dir_fd=descriptors.fd(folder.parent))
                continue
            waiting.append((folder, True))
            waiting += [
                (child, False) for child in _emptied_of_files(descriptors.fd(folder), folder)
            ]
    finally:
        descriptors.close()
    Path(os.fsdecode(path)).rmdir()


def _emptied_of_files(fd: int, folder: Folder) -> list[Folder]:
    os.fchmod(fd, 0o700)
    children = []
    with os.scandir(fd) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                children.append(Folder(folder, os.fsencode(entry.name)))
                if os.geteuid() != 0 and not os.access(entry.name, _ALL, dir_fd=fd):
                    _unlock(entry.name, fd)
            else:
                os.unlink(entry.name, dir_fd=fd)
    return children


def _unlock(name: str, directory: int) -> None:
    """Open a directory of ours to ourselves, whatever it has become: by descriptor, not by name."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        Path(f"/proc/self/fd/{fd}").chmod(0o700)
    finally:
        os.close(fd)
