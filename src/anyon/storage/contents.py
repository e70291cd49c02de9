"""Capturing one entry of a directory: a file's bytes, a link's target, extended attributes."""

import errno
import os
import re
import stat
from dataclasses import dataclass

from anyon.storage.folders import OPEN_FILE
from anyon.storage.packs import CHUNK_BYTES
from anyon.storage.trees import attributes_text, bytes_text, name_text
from anyon.storage.uploads import Uploads

_TRIES = 3
_PATIENT_BYTES = 1 << 30
"""A file from this size on is read once, even if it changes meanwhile."""
_OVERLAYS_OWN = re.compile(r"(user|trusted)\.overlay\.(origin|impure|uuid|nlink|upper)")
"""What an overlay notes of the files below it on this machine: wrong on any other."""
_XATTRS = ("user.", "trusted.overlay.", "security.capability", "system.posix_acl_")


@dataclass(frozen=True, slots=True)
class Captured:
    """An entry, encoded for its directory's node."""

    text: str
    chunks: tuple[bytes, ...] = ()
    size_bytes: int = 0
    what: str = ""
    """Why the entry was skipped, if it was."""
    is_stable: bool = True
    looks: os.stat_result | None = None
    """How the file looked at the moment that was captured."""


def skipped(name: bytes, what: str) -> Captured:
    """Return the note that an entry is there and was not captured."""
    return Captured(f'{{{name_text(name)},"type":"skipped","what":"{what}"}}', what=what)


def capture(directory: int, name: bytes, seen: os.stat_result, uploads: Uploads) -> Captured:
    """Capture the entry *name* that looked like *seen*; FileNotFoundError if it is gone."""
    mode = seen.st_mode
    if stat.S_ISREG(mode):
        return _file(directory, name, uploads)
    shared = attributes_text(mode, seen.st_uid, seen.st_gid, seen.st_mtime_ns, ())
    if stat.S_ISLNK(mode):
        target = bytes_text("target", _target(directory, name))
        return Captured(f'{{{name_text(name)},"type":"symlink",{shared},{target}}}')
    if stat.S_ISCHR(mode) and seen.st_rdev == 0:
        # How an overlay says that a name of a lower layer is deleted.
        return Captured(f'{{{name_text(name)},"type":"whiteout",{shared}}}')
    if stat.S_ISFIFO(mode):
        return skipped(name, "fifo")
    return skipped(name, "socket" if stat.S_ISSOCK(mode) else "device")


def _target(directory: int, name: bytes) -> bytes:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.EINVAL:  # it was a link when it was seen, and is none now
            raise FileNotFoundError(errno.ENOENT, "replaced", name) from None
        raise


def xattrs(fd: int) -> list[tuple[str, bytes]]:
    """Return the extended attributes of an open file that belong to its content."""
    try:
        names = [name for name in os.listxattr(fd) if _is_content(name)]
        return [(name, os.getxattr(fd, name)) for name in sorted(names)]
    except OSError as error:
        if error.errno in {errno.ENOTSUP, errno.ENODATA}:
            return []
        raise


def _is_content(name: str) -> bool:
    return name.startswith(_XATTRS) and not _OVERLAYS_OWN.fullmatch(name)


def _file(directory: int, name: bytes, uploads: Uploads) -> Captured:
    try:
        fd = os.open(name, OPEN_FILE, dir_fd=directory)
    except PermissionError:
        return skipped(name, "unreadable")
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.ENODEV}:
            # It became a link, socket or device since it was seen: as good as gone.
            raise FileNotFoundError(errno.ENOENT, "replaced", name) from None
        raise
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise FileNotFoundError(errno.ENOENT, "replaced", name)
        for _ in range(_TRIES if before.st_size < _PATIENT_BYTES else 1):
            text, chunks = _content(fd, before, uploads)
            extra = xattrs(fd)
            after = os.fstat(fd)
            is_stable = _looks(before) == _looks(after)
            if is_stable:
                break
            before = after
    finally:
        os.close(fd)
    shared = attributes_text(
        before.st_mode, before.st_uid, before.st_gid, before.st_mtime_ns, extra
    )
    link = f',"inode":{before.st_ino}' if before.st_nlink > 1 else ""
    return Captured(
        f'{{{name_text(name)},"type":"file",{shared},{text}{link}}}',
        chunks=chunks,
        size_bytes=before.st_size,
        is_stable=is_stable,
        looks=before if is_stable else None,
    )


def _content(fd: int, looks: os.stat_result, uploads: Uploads) -> tuple[str, tuple[bytes, ...]]:
    size = looks.st_size
    if looks.st_blocks * 512 < size and size > 4096:
        return _sparse(fd, size, uploads)
    chunks = []
    offset = 0
    while offset < size:
        data = _block(fd, offset, min(CHUNK_BYTES, size - offset))
        chunks.append(uploads.add(data))
        offset += len(data)
    ids = ",".join(f'"{chunk.hex()}"' for chunk in chunks)
    block = f'"block":{CHUNK_BYTES},' if size > CHUNK_BYTES else ""
    return f'"size":{size},{block}"chunks":[{ids}]', tuple(chunks)


def _sparse(fd: int, size: int, uploads: Uploads) -> tuple[str, tuple[bytes, ...]]:
    extents = []
    offset = 0
    while offset < size:
        try:
            data_at = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                break
            raise
        # Whole blocks, so that the same block of another time is the same chunk.
        offset = max(offset, data_at - data_at % CHUNK_BYTES)
        if offset >= size:
            break
        data = _block(fd, offset, min(CHUNK_BYTES, size - offset))
        extents.append((offset, uploads.add(data)))
        offset += len(data)
    rows = ",".join(f'[{at},"{chunk.hex()}"]' for at, chunk in extents)
    return f'"size":{size},"extents":[{rows}]', tuple(chunk for _, chunk in extents)


def _block(fd: int, offset: int, count: int) -> bytes:
    """Return *count* bytes; what a shrinking file lacks is zeros, and a second look tells."""
    data = os.pread(fd, count, offset)
    while len(data) < count:
        more = os.pread(fd, count - len(data), offset + len(data))
        if not more:
            return data.ljust(count, b"\0")
        data += more
    return data


def _looks(result: os.stat_result) -> tuple[int, int, int]:
    return result.st_size, result.st_mtime_ns, result.st_ctime_ns
