"""Tree nodes: one immutable JSON text per directory, named by its hash like any chunk.

Written by hand-joined text on the way in (a directory's entries are encoded when it is
scanned, its directories when they are done) and parsed strictly on the way out.
"""

import base64
import json
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from anyon.storage.objects import DamagedError

NODE_FORMAT = 1
_PLAIN_NAME = re.compile(rb'[^\x00-\x1f"\\\x7f-\xff]+')
_IDS = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory as a checkpoint holds it."""

    name: bytes
    kind: str
    """``file``, ``directory``, ``symlink``, ``whiteout`` or ``skipped``."""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    chunks: tuple[tuple[int, bytes], ...] = ()
    """(offset, chunk) of a file's data; what lies between is a hole."""
    is_sparse: bool = False
    target: bytes = b""
    inode: int = 0
    """Equal and not 0 for the names of one file with several hard links."""
    node: bytes = b""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    what: str = ""
    """Of a skipped entry: what it is (``fifo``, ``socket``, ``device``, ``unreadable``)."""


def name_text(name: bytes) -> str:
    """Return the JSON members that hold *name*."""
    if _PLAIN_NAME.fullmatch(name):
        return f'"name":"{name.decode()}"'
    return bytes_text("name", name)


def bytes_text(member: str, value: bytes) -> str:
    """Return the JSON member *member* of *value*: text if it is UTF-8, else base64."""
    try:
        return f'"{member}":{json.dumps(value.decode())}'
    except UnicodeDecodeError:
        return f'"{member}_base64":"{base64.b64encode(value).decode()}"'


def attributes_text(
    mode: int, uid: int, gid: int, mtime_ns: int, xattrs: Iterable[tuple[str, bytes]]
) -> str:
    """Return the JSON members that all entries share."""
    text = f'"mode":{stat.S_IMODE(mode)},"uid":{uid},"gid":{gid},"mtime":{mtime_ns}'
    pairs = {name: base64.b64encode(value).decode() for name, value in xattrs}
    return f'{text},"xattrs":{json.dumps(pairs, sort_keys=True)}' if pairs else text


def node_text(files: Iterable[str], directories: Iterable[str]) -> bytes:
    """Return a node: the texts of its files and of its directories, each sorted by name."""
    return (
        f'{{"format":{NODE_FORMAT},"files":[{",".join(files)}],'
        f'"directories":[{",".join(directories)}]}}'
    ).encode()


def parse_node(data: bytes) -> list[Entry]:
    """Return the entries of a node: names are valid, and none comes twice."""
    try:
        body = json.loads(data)
        if body["format"] != NODE_FORMAT:
            raise DamagedError("a directory is of a format this version does not know")
        entries = [parse_entry(row) for row in body["files"]]
        entries += [parse_entry(row) for row in body["directories"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"a directory's record is not of its form: {error}") from error
    names = {entry.name for entry in entries}
    if len(names) != len(entries) or any(not _is_name(name) for name in names):
        raise DamagedError("a directory's record has a name that no directory has")
    return entries


def parse_entry(row: dict[str, Any]) -> Entry:
    """Return the entry that *row* (one of a node's objects) holds."""
    kind = row["type"]
    make = _KINDS.get(kind)
    if make is None:
        raise DamagedError(f"an entry is of the unknown type {kind!r}")
    attributes = {
        "mode": row.get("mode", 0) & 0o7777,
        "uid": row.get("uid", 0),
        "gid": row.get("gid", 0),
        "mtime_ns": row.get("mtime", 0),
        "xattrs": tuple((n, base64.b64decode(v)) for n, v in row.get("xattrs", {}).items()),
    }
    return Entry(name=_bytes(row, "name"), kind=kind, **attributes, **make(row))


def _file(row: dict[str, Any]) -> dict[str, Any]:
    size = int(row["size"])
    if size < 0:
        raise DamagedError("a file's record has a size below zero")
    is_sparse = "extents" in row
    if is_sparse:
        chunks = tuple((int(offset), _id(chunk)) for offset, chunk in row["extents"])
    else:
        block = int(row.get("block", 0)) or size
        chunks = tuple((number * block, _id(chunk)) for number, chunk in enumerate(row["chunks"]))
    if any(not 0 <= offset < max(size, 1) for offset, _ in chunks):
        raise DamagedError("a file's record has a part outside of the file")
    inode = int(row.get("inode", 0))
    return {"size": size, "is_sparse": is_sparse, "chunks": chunks, "inode": inode}


_KINDS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "file": _file,
    "directory": lambda row: {"node": _id(row["node"])},
    "symlink": lambda row: {"target": _bytes(row, "target")},
    "whiteout": lambda _: {},
    "skipped": lambda row: {"what": str(row["what"])},
}


def _bytes(row: dict[str, Any], member: str) -> bytes:
    if member in row:
        text: str = row[member]
        return text.encode()
    return base64.b64decode(row[f"{member}_base64"], validate=True)


def _id(text: str) -> bytes:
    if not _IDS.fullmatch(text):
        raise DamagedError("a chunk's name is not of its form")
    return bytes.fromhex(text)


def _is_name(name: bytes) -> bool:
    return (
        0 < len(name) <= 255
        and b"/" not in name
        and b"\0" not in name
        and name not in {b".", b".."}
    )
