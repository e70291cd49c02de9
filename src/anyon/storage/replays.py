"""Putting a saved layer into a container that has never run: planned from two listings, then done.

Everything is named by descriptors of its directory; nothing is followed through a symbolic link.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum

from anyon.storage import contents
from anyon.storage.folders import OPEN_FILE, Descriptors, Folder, sync_file_system

_BLOCK = 1 << 20


class Kind(StrEnum):
    """What a name in a layer is."""

    DIRECTORY = "directory"
    FILE = "file"
    SYMLINK = "symlink"
    WHITEOUT = "whiteout"
    OTHER = "other"
    """A device, FIFO or socket: never put into a container."""


@dataclass(slots=True)
class Item:
    """One name in a layer; *inode* is not 0 where a file has several names."""

    kind: Kind
    inode: int = 0
    inside: dict[bytes, "Item"] = field(default_factory=dict)
    """Of a directory."""


@dataclass(slots=True)
class Plan:
    """What is done to a layer, in this order."""

    removed: list[tuple[Folder, bytes, Kind]] = field(default_factory=list)
    """Leaves first."""
    made: list[Folder] = field(default_factory=list)
    """New directories, outer ones first."""
    written: list[tuple[Folder, bytes, Kind]] = field(default_factory=list)
    """New files, symbolic links and whiteouts."""
    linked: list[tuple[Folder, bytes, Folder, bytes]] = field(default_factory=list)
    """Further names of written files, and of which."""
    dressed: list[Folder] = field(default_factory=list)
    """Directories that get the saved attributes, leaves first; the layer's own is last."""


def plan(wanted: Item, present: Item) -> Plan:
    """Decide how a layer that holds *present* becomes one that holds *wanted*.

    What is wanted replaces what has its name, but two directories are one. What has no wanted
    name is the engine's own (the places of its mounts) and stays.
    """
    what = Plan()
    first: dict[int, tuple[Folder, bytes]] = {}
    waiting: list[tuple[Folder, Item, Item]] = [(Folder(None, b""), wanted, present)]
    while waiting:
        folder, new, old = waiting.pop()
        what.dressed.append(folder)
        for name, item in new.inside.items():
            there = old.inside.get(name)
            if item.kind is Kind.OTHER:
                continue
            is_kept = there is not None and there.kind is item.kind is Kind.DIRECTORY
            if there is not None and not is_kept:
                what.removed += _removal(folder, name, there)
            if item.kind is Kind.DIRECTORY:
                child = Folder(folder, name)
                if not is_kept:
                    what.made.append(child)
                waiting.append((child, item, there if is_kept and there else Item(Kind.DIRECTORY)))
            elif item.inode and item.inode in first:
                what.linked.append((folder, name, *first[item.inode]))
            else:
                first.setdefault(item.inode, (folder, name))
                what.written.append((folder, name, item.kind))
    what.dressed.reverse()
    return what


def _removal(folder: Folder, name: bytes, item: Item) -> list[tuple[Folder, bytes, Kind]]:
    found = []
    waiting = [(folder, name, item)]
    while waiting:
        above, each, there = waiting.pop()
        found.append((above, each, there.kind))
        if there.inside:
            inner = Folder(above, each)
            waiting += [(inner, inside, child) for inside, child in there.inside.items()]
    found.reverse()
    return found


@dataclass(slots=True)
class Replayed:
    """What was put into a layer."""

    directories: int = 0
    files: int = 0
    deletions: int = 0
    """Names of the image that the layer deletes."""
    notes: list[str] = field(default_factory=list)
    """What could not be set here."""


def replay(saved: bytes, layer: bytes) -> Replayed:
    """Make the directory *layer* hold what *saved* holds; blocks, may be repeated.

    Owners, modes (setuid too), times, links, holes, whiteouts and attributes are as saved.
    Nobody else may write either directory meanwhile. Returns once it is durable; OSError.
    """
    with closing(Descriptors(saved)) as source, closing(Descriptors(layer)) as target:
        what = plan(listing(source), listing(target))
        replayed = Replayed()
        for folder, name, kind in what.removed:
            remove = os.rmdir if kind is Kind.DIRECTORY else os.unlink
            remove(name, dir_fd=target.fd(folder))
        for folder in what.made:
            os.mkdir(folder.name, 0o700, dir_fd=target.fd(_above(folder)))
        for folder, name, kind in what.written:
            _write(source.fd(folder), target.fd(folder), name, kind, replayed)
        for folder, name, first, first_name in what.linked:
            _link(target, folder, name, first, first_name)
        for folder in what.dressed:
            _dress(source.fd(folder), target.fd(folder), replayed)
        replayed.directories = len(what.made)
        replayed.files = len(what.written) + len(what.linked)
        replayed.deletions = sum(kind is Kind.WHITEOUT for _, _, kind in what.written)
        sync_file_system(target.fd(Folder(None, b"")))
    return replayed


def listing(tree: Descriptors) -> Item:
    """Return what a directory holds, with all that is below it."""
    top = Item(Kind.DIRECTORY)
    waiting = [(Folder(None, b""), top)]
    while waiting:
        folder, item = waiting.pop()
        for name, st in sorted(_entries(tree.fd(folder))):
            kind = _kind(st)
            inode = st.st_ino if kind is Kind.FILE and st.st_nlink > 1 else 0
            item.inside[name] = Item(kind, inode)
            if kind is Kind.DIRECTORY:
                waiting.append((Folder(folder, name), item.inside[name]))
    return top


def _above(folder: Folder) -> Folder:
    if folder.parent is None:
        raise ValueError("a layer's own directory is never made")
    return folder.parent


def _link(
    target: Descriptors, folder: Folder, name: bytes, first: Folder, first_name: bytes
) -> None:
    there = os.open(first_name, os.O_PATH | os.O_NOFOLLOW, dir_fd=target.fd(first))
    try:
        # A descriptor of the source makes Python call linkat, which follows /proc's link.
        source = b"/proc/self/fd/%d" % there
        os.link(source, name, src_dir_fd=there, dst_dir_fd=target.fd(folder))
    finally:
        os.close(there)


def _entries(fd: int) -> Iterator[tuple[bytes, os.stat_result]]:
    with os.scandir(fd) as entries:
        for entry in entries:
            yield os.fsencode(entry.name), entry.stat(follow_symlinks=False)


def _kind(st: os.stat_result) -> Kind:
    if stat.S_ISCHR(st.st_mode) and st.st_rdev == 0:
        return Kind.WHITEOUT
    return _KINDS.get(stat.S_IFMT(st.st_mode), Kind.OTHER)


_KINDS = {
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.SYMLINK,
}


def _write(here: int, there: int, name: bytes, kind: Kind, replayed: Replayed) -> None:
    if kind is Kind.FILE:
        read = os.open(name, OPEN_FILE, dir_fd=here)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            write = os.open(name, flags, 0o600, dir_fd=there)
            try:
                _copy(read, write)
                _dress(read, write, replayed)
            finally:
                os.close(write)
        finally:
            os.close(read)
        return
    st = os.stat(name, dir_fd=here, follow_symlinks=False)
    if kind is Kind.SYMLINK:
        os.symlink(os.readlink(name, dir_fd=here), name, dir_fd=there)
    else:
        os.mknod(name, stat.S_IFCHR | stat.S_IMODE(st.st_mode), os.makedev(0, 0), dir_fd=there)
    os.chown(name, st.st_uid, st.st_gid, dir_fd=there, follow_symlinks=False)
    os.utime(name, ns=(st.st_mtime_ns, st.st_mtime_ns), dir_fd=there, follow_symlinks=False)


def _copy(read: int, write: int) -> None:
    size, at = os.fstat(read).st_size, 0
    os.ftruncate(write, size)
    while at < size:
        try:
            at = os.lseek(read, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        end = os.lseek(read, at, os.SEEK_HOLE)
        while at < end:
            data = memoryview(os.pread(read, min(_BLOCK, end - at), at))
            if not data:
                raise OSError(errno.EIO, "a saved file is shorter than it was")
            while data:
                done = os.pwrite(write, data, at)
                data, at = data[done:], at + done


def _dress(source: int, target: int, replayed: Replayed) -> None:
    st = os.fstat(source)
    os.fchown(target, st.st_uid, st.st_gid)
    for name, value in contents.xattrs(source):
        try:
            os.setxattr(target, name, value)
        except OSError as error:
            note = f"the attribute {name} could not be set: {error.strerror}"
            if note not in replayed.notes:
                replayed.notes.append(note)
    os.fchmod(target, stat.S_IMODE(st.st_mode))  # after the owner, whose change drops setuid
    os.utime(target, ns=(st.st_mtime_ns, st.st_mtime_ns))
