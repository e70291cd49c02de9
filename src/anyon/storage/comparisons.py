"""Holding trees on disk against a checkpoint: the proof that a restore brought all of it back.

It looks at the files themselves, not at what a restore says of its work.
"""

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from anyon.domain import paths
from anyon.storage.contents import xattrs
from anyon.storage.folders import OPEN_FILE, Descriptors, Folder
from anyon.storage.readings import Reading
from anyon.storage.trees import Entry
from anyon.storage.uploads import Stop

_MOST = 100
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "whiteout",
}


@dataclass(slots=True)
class Compared:
    """What a comparison saw."""

    files: int = 0
    size_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    """One line for each difference, at most 100."""

    @property
    def is_equal(self) -> bool:
        """Say whether the trees are what the checkpoint holds."""
        return not self.problems

    def note(self, path: bytes, what: str) -> None:
        """Add a difference."""
        if len(self.problems) < _MOST:
            self.problems.append(f"{paths.shown(path)}: {what}")


def compare(reading: Reading, targets: Mapping[str, Path], stop: Stop) -> Compared:
    """Compare each tree with its directory: names, kinds, modes, times, links, every byte.

    Owners are compared where this process may set them, whiteouts likewise.
    """
    compared = Compared()
    for tree, target in targets.items():
        inodes: dict[int, int] = {}
        descriptors = Descriptors(bytes(target))
        try:
            waiting = [(Folder(None, b""), reading.root(tree))]
            while waiting:
                stop.check()
                folder, directory = waiting.pop()
                path = (tree.encode() + b"/" + folder.path()).rstrip(b"/")
                entries = {e.name: e for e in reading.entries(directory) if e.kind != "skipped"}
                fd = descriptors.fd(folder)
                names = {os.fsencode(name) for name in os.listdir(fd)}  # noqa: PTH208 - by descriptor
                for name in names - entries.keys():
                    compared.note(path + b"/" + name, "is not in the checkpoint")
                for name, entry in entries.items():
                    if name in names:
                        _Look(reading, compared, inodes).at(fd, path + b"/" + name, entry)
                    elif entry.kind != "whiteout" or _is_root():
                        compared.note(path + b"/" + name, "is missing")
                    if entry.kind == "directory" and name in names:
                        waiting.append((Folder(folder, name), entry))
        finally:
            descriptors.close()
    return compared


@dataclass(frozen=True, slots=True)
class _Look:
    """One tree's comparison; ``inodes`` are those on disk by those of the checkpoint."""

    reading: Reading
    compared: Compared
    inodes: dict[int, int]

    def at(self, fd: int, path: bytes, entry: Entry) -> None:
        """Compare one entry of the directory *fd*."""
        note = self.compared.note
        st = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
        kind = _KINDS.get(stat.S_IFMT(st.st_mode), "other")
        if kind != entry.kind:
            note(path, f"is a {kind}, not a {entry.kind}")
            return
        if entry.kind != "symlink" and stat.S_IMODE(st.st_mode) != entry.mode:
            note(path, f"has the mode {stat.S_IMODE(st.st_mode):o}, not {entry.mode:o}")
        if st.st_mtime_ns != entry.mtime_ns:
            note(path, "has another time")
        if _is_root() and (st.st_uid, st.st_gid) != (entry.uid, entry.gid):
            note(path, "has another owner")
        if entry.kind == "symlink" and os.readlink(entry.name, dir_fd=fd) != entry.target:
            note(path, "points elsewhere")
        if entry.kind != "directory":
            self.compared.files += 1
        if entry.kind == "file":
            self._file(fd, path, entry, st)

    def _file(self, fd: int, path: bytes, entry: Entry, st: os.stat_result) -> None:
        note = self.compared.note
        if entry.inode and self.inodes.setdefault(entry.inode, st.st_ino) != st.st_ino:
            note(path, "is not the same file as its other names")
        if st.st_size != entry.size:
            note(path, f"has {st.st_size} bytes, not {entry.size}")
            return
        file = os.open(entry.name, OPEN_FILE, dir_fd=fd)
        try:
            if not _has_content(self.reading, file, entry, self.compared):
                note(path, "has other content")
            users = tuple(pair for pair in xattrs(file) if pair[0].startswith("user."))
            if users != tuple(pair for pair in entry.xattrs if pair[0].startswith("user.")):
                note(path, "has other attributes")
        finally:
            os.close(file)


def _has_content(reading: Reading, file: int, entry: Entry, compared: Compared) -> bool:
    at = 0
    for offset, chunk in entry.chunks:
        data = reading.chunk(chunk)
        if not _is_hole(file, at, offset) or os.pread(file, len(data), offset) != data:
            return False
        at = offset + len(data)
        compared.size_bytes += len(data)
    return _is_hole(file, at, entry.size)


def _is_hole(file: int, start: int, end: int) -> bool:
    """Say whether a part of a file is zeros; what is not allocated is not read."""
    while start < end:
        try:
            start = os.lseek(file, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return True
            raise
        if start >= end:
            return True
        data = os.pread(file, min(1 << 20, end - start), start)
        if not data or data.strip(b"\0"):
            return not data
        start += len(data)
    return True


def _is_root() -> bool:
    return os.geteuid() == 0
