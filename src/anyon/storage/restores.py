"""Bringing a checkpoint back: beside the target first, verified and durable, then renamed.

The staging directory is closed to everyone else, symbolic links are made after all files,
and names are checked, so nothing can be written outside of it.
"""

import errno
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from anyon.domain.errors import ConflictError
from anyon.failpoints import reached
from anyon.storage.folders import Descriptors, Folder, remove_tree, sync_file_system
from anyon.storage.objects import DamagedError
from anyon.storage.readings import Reading
from anyon.storage.trees import Entry
from anyon.storage.uploads import Stop

_LONG_PATH = 3500
_PAGE = 4096
_WHOLE = 0.5
"""From this part of a pack on it is read whole, in one request."""

Progress = Callable[[int, int], None]
"""Told the bytes done and the bytes in all."""


@dataclass(slots=True)
class Restored:
    """What came back."""

    files: int = 0
    bytes: int = 0
    notes: list[str] = field(default_factory=list)
    """What this machine or this user could not set: owners, some attributes, whiteouts."""


class _File:
    __slots__ = ("entry", "folder", "left")

    def __init__(self, folder: Folder, entry: Entry) -> None:
        self.folder = folder
        self.entry = entry
        self.left = len(entry.chunks)


class _Tree:
    """One directory that is being restored into a staging place."""

    def __init__(self, staging: bytes, stop: Stop, restored: Restored) -> None:
        self.staging = staging
        self.top = Folder(None, b"")
        self._descriptors = Descriptors(staging)
        self._paths = {self.top: staging}
        self._lock = threading.Lock()
        self._stop = stop
        self._restored = restored
        self._is_root = os.geteuid() == 0
        self._umask_owner = (os.geteuid(), os.getegid())

    def close(self) -> None:
        self._descriptors.close()

    @contextmanager
    def at(self, folder: Folder) -> Iterator[tuple[int | None, bytes]]:
        """Give the directory descriptor and the prefix by which names of *folder* are opened."""
        path = self._paths.get(folder)
        if path is not None:
            yield None, path + b"/"
            return
        with self._lock:
            yield self._descriptors.fd(folder), b""

    def add_folder(self, parent: Folder, name: bytes) -> Folder:
        folder = Folder(parent, name)
        with self.at(parent) as (fd, prefix):
            os.mkdir(prefix + name, 0o700, dir_fd=fd)
        above = self._paths.get(parent)
        if above is not None and len(above) + len(name) < _LONG_PATH:
            self._paths[folder] = above + b"/" + name
        return folder

    def write(self, file: _File, parts: list[tuple[int, bytes]]) -> None:
        """Write some chunks of a file; with the last one it gets its attributes."""
        entry = file.entry
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with self.at(file.folder) as (directory, prefix):
            fd = os.open(prefix + entry.name, flags, 0o600, dir_fd=directory)
        try:
            for offset, data in parts:
                self._put(fd, offset, data, is_sparse=entry.is_sparse)
            with self._lock:
                file.left -= len(parts)
                is_last = file.left == 0
                if is_last:
                    self._restored.files += 1
                self._restored.bytes += sum(len(data) for _, data in parts)
            if is_last:
                if entry.is_sparse:
                    os.ftruncate(fd, entry.size)
                self.dress(fd, entry)
        finally:
            os.close(fd)

    def dress(self, fd: int, entry: Entry) -> None:
        """Give an open file or directory its owner, attributes, mode and times."""
        if (entry.uid, entry.gid) != self._umask_owner:
            try:
                os.fchown(fd, entry.uid, entry.gid)
            except PermissionError:
                self._note("owners could not be set: the server does not run as root")
        for name, value in entry.xattrs:
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                self._note(f"the attribute {name} could not be set: {error.strerror}")
        os.fchmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def link(self, folder: Folder, entry: Entry, first: _File) -> None:
        """Make *entry* another name of a file that is there."""
        with self.at(first.folder) as (fd, prefix):
            there = os.open(prefix + first.entry.name, os.O_PATH | os.O_NOFOLLOW, dir_fd=fd)
        try:
            with self.at(folder) as (fd, prefix):
                # A descriptor of the source makes Python call linkat, which follows /proc's link.
                source = b"/proc/self/fd/%d" % there
                os.link(source, prefix + entry.name, src_dir_fd=there, dst_dir_fd=fd)
        finally:
            os.close(there)

    def special(self, folder: Folder, entry: Entry) -> None:
        """Make a symbolic link or a whiteout."""
        with self.at(folder) as (fd, prefix):
            path = prefix + entry.name
            if entry.kind == "symlink":
                os.symlink(entry.target, path, dir_fd=fd)
            else:
                try:
                    os.mknod(path, stat.S_IFCHR | entry.mode, 0, dir_fd=fd)
                except PermissionError:
                    self._note("whiteouts could not be made: the server does not run as root")
                    return
            if self._is_root:
                os.chown(path, entry.uid, entry.gid, dir_fd=fd, follow_symlinks=False)
            times = (entry.mtime_ns, entry.mtime_ns)
            os.utime(path, ns=times, dir_fd=fd, follow_symlinks=False)

    def finish(self, folders: list[tuple[Folder, Entry]]) -> None:
        """Give the directories their attributes, leaves first."""
        for folder, entry in reversed(folders):
            self._stop.check()
            if folder.parent is None:
                continue
            with self.at(folder.parent) as (fd, prefix):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                opened = os.open(prefix + folder.name, flags, dir_fd=fd)
            try:
                self.dress(opened, entry)
            finally:
                os.close(opened)

    def _put(self, fd: int, offset: int, data: bytes, *, is_sparse: bool) -> None:
        view = memoryview(data)
        if not is_sparse:
            _pwrite(fd, view, offset)
            return
        for start in range(0, len(data), _PAGE):
            page = view[start : start + _PAGE]
            if any(page):
                _pwrite(fd, page, offset + start)

    def _note(self, text: str) -> None:
        with self._lock:
            if text not in self._restored.notes:
                self._restored.notes.append(text)


class Restore:
    """One checkpoint (or directories of it) on its way back; blocks; call ``run`` once."""

    def __init__(
        self,
        reading: Reading,
        targets: Mapping[Path, Entry],
        stop: Stop,
        *,
        workers: int = 3,
        progress: Progress | None = None,
        only: Mapping[Path, bytes] | None = None,
    ) -> None:
        """Prepare; *only* names the one entry of a target's directory that is to be brought back."""
        self._reading = reading
        self._only = only or {}
        self._targets = targets
        self._stop = stop
        self._workers = workers
        self._progress = progress
        self._restored = Restored()
        self._needs: dict[tuple[str, int], dict[bytes, list[tuple[_Tree, _File, int]]]] = {}
        self._total = 0

    def run(self) -> Restored:
        """Restore every target, or none that is not whole; then rename them into place."""
        for target in self._targets:
            if target.is_symlink() or (target.exists() and not _is_empty(target)):
                raise ConflictError(f"{target} is in the way", code="target_exists")
        staged: list[tuple[bytes, Path]] = []
        trees: list[_Tree] = []
        try:
            plans = []
            for target, entry in self._targets.items():
                staging = _staging(target)
                staged.append((staging, target))
                trees.append(_Tree(staging, self._stop, self._restored))
                plans.append(self._plan(trees[-1], entry, self._only.get(target)))
                reached("restore.planned")
            self._fill()
            reached("restore.filled")
            for tree, plan in zip(trees, plans, strict=True):
                self._complete(tree, plan)
                reached("restore.synced")
            for staging, target in staged:
                _settle(staging, target)
                reached("restore.settled")
        finally:
            for tree in trees:
                tree.close()
            for staging, _ in staged:
                remove_tree(staging)
        return self._restored

    def _plan(self, tree: _Tree, top: Entry, only: bytes | None) -> "_Plan":
        """Make the directories and note which chunk goes where."""
        plan = _Plan(top)
        waiting: list[tuple[Folder, Entry]] = [(tree.top, top)]
        while waiting:
            self._stop.check()
            folder, directory = waiting.pop()
            plan.folders.append((folder, directory))
            for entry in self._reading.entries(directory):
                if only is not None and folder is tree.top and entry.name != only:
                    continue
                if entry.kind == "directory":
                    waiting.append((tree.add_folder(folder, entry.name), entry))
                elif entry.kind == "file":
                    self._plan_file(tree, plan, folder, entry)
                elif entry.kind in {"symlink", "whiteout"}:
                    plan.specials.append((folder, entry))
        return plan

    def _plan_file(self, tree: _Tree, plan: "_Plan", folder: Folder, entry: Entry) -> None:
        if entry.inode:
            first = plan.inodes.get(entry.inode)
            if first is not None:
                plan.links.append((folder, entry, first))
                return
        file = _File(folder, entry)
        if entry.inode:
            plan.inodes[entry.inode] = file
        if not entry.chunks:
            tree.write(file, [])
        for offset, chunk in entry.chunks:
            place = self._reading.places.get(chunk)
            if place is None:
                raise DamagedError(f"a part of {_shown(file)} is in none of the packs")
            self._needs.setdefault(place, {}).setdefault(chunk, []).append((tree, file, offset))
        self._total += entry.size if not entry.is_sparse else 0

    def _fill(self) -> None:
        by_pack: dict[str, list[int]] = {}
        for pack, number in self._needs:
            by_pack.setdefault(pack, []).append(number)
        with ThreadPoolExecutor(self._workers, thread_name_prefix="anyon-restore") as pool:
            jobs = [pool.submit(self._fill_from, p, sorted(n)) for p, n in by_pack.items()]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _fill_from(self, pack_id: str, numbers: list[int]) -> None:
        pack = self._reading.packs[pack_id]
        wanted = sum(pack.frames[number].stored_bytes for number in numbers)
        whole = None
        if len(numbers) > 1 and wanted > _WHOLE * pack.size_bytes:
            whole = memoryview(self._reading.stored(pack_id, 0, pack.size_bytes))
        for number in numbers:
            self._stop.check()
            frame = pack.frames[number]
            needs = self._needs.pop((pack_id, number))
            try:
                if whole is None:
                    chunks = self._reading.frame(pack_id, number)
                else:
                    stored = bytes(whole[frame.offset : frame.offset + frame.stored_bytes])
                    chunks = self._reading.open(pack_id, frame, stored)
            except DamagedError as error:
                raise _named(error, needs) from error
            self._write_frame(needs, chunks)

    def _write_frame(
        self,
        needs: dict[bytes, list[tuple[_Tree, _File, int]]],
        chunks: Mapping[bytes, bytes],
    ) -> None:
        for chunk, places in needs.items():
            for tree, file, offset in places:
                tree.write(file, [(offset, chunks[chunk])])
        if self._progress is not None:
            self._progress(self._restored.bytes, self._total)

    def _complete(self, tree: _Tree, plan: "_Plan") -> None:
        for folder, entry, first in plan.links:
            tree.link(folder, entry, first)
            self._restored.files += 1
        for folder, entry in plan.specials:
            tree.special(folder, entry)
            self._restored.files += 1
        tree.finish(plan.folders)
        fd = os.open(tree.staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            tree.dress(fd, plan.top)
            sync_file_system(fd)
        finally:
            os.close(fd)


@dataclass(slots=True)
class _Plan:
    top: Entry
    folders: list[tuple[Folder, Entry]] = field(default_factory=list)
    specials: list[tuple[Folder, Entry]] = field(default_factory=list)
    links: list[tuple[Folder, Entry, _File]] = field(default_factory=list)
    inodes: dict[int, _File] = field(default_factory=dict)


def _staging(target: Path) -> bytes:
    """Return a new directory beside *target*; what a killed restore left there is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    start = f".{target.name}.restoring-"
    for old in target.parent.iterdir():
        if old.name.startswith(start):
            remove_tree(bytes(old))
    path = target.with_name(start + secrets.token_hex(8))
    path.mkdir(mode=0o700)
    return bytes(path)


def _settle(staging: bytes, target: Path) -> None:
    try:
        Path(os.fsdecode(staging)).rename(target)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise ConflictError(f"{target} is in the way", code="target_exists") from error
        raise
    fd = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _pwrite(fd: int, data: memoryview, offset: int) -> None:
    while data:
        done = os.pwrite(fd, data, offset)
        data = data[done:]
        offset += done


def _shown(file: _File) -> str:
    return (file.folder.path() + b"/" + file.entry.name).decode("utf-8", "replace")


def _named(
    error: DamagedError, needs: Mapping[bytes, list[tuple[_Tree, _File, int]]]
) -> DamagedError:
    names = sorted({_shown(file) for places in needs.values() for _, file, _ in places})
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return DamagedError(
        f"{', '.join(names[:10])}{more}: {error.message}",
        hint="Restore an earlier checkpoint; `verify` says which are whole.",
    )
