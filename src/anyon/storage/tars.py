"""A directory or file of a checkpoint as a tar stream (POSIX 2001, so any name and size fits)."""

import tarfile
from collections.abc import Iterator

from anyon.storage.readings import Reading
from anyon.storage.trees import Entry

_PIECE_BYTES = 256 << 10
_KINDS = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "whiteout": tarfile.CHRTYPE,
}


def stream(reading: Reading, tops: list[tuple[bytes, Entry]]) -> Iterator[bytes]:
    """Yield the archive of *tops* (the name each has in it, and what it is) in pieces.

    Modes, owners, times to the nanosecond, links and extended attributes are in it. What a
    checkpoint only notes (sockets, say) is not; holes are zeros.
    """
    held = bytearray()
    for part in _parts(reading, tops):
        held += part
        if len(held) >= _PIECE_BYTES:
            yield bytes(held)
            held.clear()
    held += bytes(2 * tarfile.BLOCKSIZE)
    held += bytes(-len(held) % tarfile.BLOCKSIZE)
    yield bytes(held)


def _parts(reading: Reading, tops: list[tuple[bytes, Entry]]) -> Iterator[bytes]:
    for top, entry in tops:
        first_names: dict[int, bytes] = {}
        for path, found in reading.walk(entry, top):
            if found.kind not in _KINDS:
                continue
            link = first_names.setdefault(found.inode, path) if found.inode else path
            yield _header(path, found, link if link != path else None)
            if found.kind == "file" and link == path:
                yield from reading.content(found)
                yield bytes(-found.size % tarfile.BLOCKSIZE)


def _header(path: bytes, entry: Entry, link: bytes | None) -> bytes:
    info = tarfile.TarInfo(_text(path))
    info.type = tarfile.LNKTYPE if link is not None else _KINDS[entry.kind]
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    info.mtime, rest = divmod(entry.mtime_ns, 10**9)
    if link is not None:
        info.linkname = _text(link)
    elif entry.kind == "symlink":
        info.linkname = _text(entry.target)
    elif entry.kind == "file":
        info.size = entry.size
    headers = {}
    if rest:
        headers["mtime"] = f"{info.mtime}.{rest:09d}"
    for name, value in entry.xattrs:
        headers[f"SCHILY.xattr.{name}"] = _text(value)
    info.pax_headers = headers
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
