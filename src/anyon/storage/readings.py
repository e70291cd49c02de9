"""Reading a checkpoint without restoring it: nodes, entries, files, differences."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from anyon.domain.errors import NotFoundError
from anyon.storage.archives import Archive
from anyon.storage.objects import DamagedError, ObjectNotFoundError
from anyon.storage.packs import Frame, Pack, open_frame
from anyon.storage.records import Checkpoint
from anyon.storage.trees import Entry, parse_entry, parse_node

_KEPT_FRAMES = 24


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that differs between two checkpoints."""

    path: bytes
    before: Entry | None
    after: Entry | None


class Reading:
    """One checkpoint, open for reading; may be used by several threads."""

    def __init__(
        self,
        archive: Archive,
        checkpoint: Checkpoint,
        check: Callable[[], None] = lambda: None,
        *,
        lost: dict[str, str] | None = None,
    ) -> None:
        """Read the indexes; with *lost*, packs that cannot be read are noted there with why."""
        self.checkpoint = checkpoint
        self._archive = archive
        self._frames: OrderedDict[tuple[str, int], dict[bytes, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self.packs: dict[str, Pack] = {}
        self.places: dict[bytes, tuple[str, int]] = {}
        """Each chunk's pack and the number of its frame there."""
        try:
            for pack in archive.pack_indexes(checkpoint, check, lost):
                self.packs[pack.id] = pack
                for number, frame in enumerate(pack.frames):
                    for chunk, _ in frame.chunks:
                        self.places[chunk] = (pack.id, number)
        except ObjectNotFoundError as error:
            raise DamagedError(
                f"a pack of the checkpoint {checkpoint.id} is not in the store: {error}",
                hint="Restore an earlier checkpoint; `verify` says which are whole.",
            ) from error

    def chunk(self, chunk: bytes) -> bytes:
        """Return a chunk's bytes, verified; DamagedError if they are not what was written."""
        place = self.places.get(chunk)
        if place is None:
            raise DamagedError(f"the chunk {chunk.hex()} is in none of the checkpoint's packs")
        with self._lock:
            chunks = self._frames.get(place)
        if chunks is None:
            chunks = self.frame(*place)
            with self._lock:
                self._frames[place] = chunks
                if len(self._frames) > _KEPT_FRAMES:
                    self._frames.popitem(last=False)
        return chunks[chunk]

    def frame(self, pack_id: str, number: int) -> dict[bytes, bytes]:
        """Return the chunks of one frame, read by itself."""
        frame = self.packs[pack_id].frames[number]
        data = self.stored(pack_id, frame.offset, frame.stored_bytes)
        return self.open(pack_id, frame, data)

    def stored(self, pack_id: str, offset: int, length: int) -> bytes:
        """Return a part of a pack as it is in the store."""
        place = self._archive.pack_place(self.checkpoint, pack_id)
        try:
            data = self._archive.store.get(place, start=offset, length=length).data
        except ObjectNotFoundError:
            raise DamagedError(f"the pack {pack_id} is not in the store") from None
        if len(data) != length:
            raise DamagedError(f"the pack {pack_id} is cut")
        return data

    def open(self, pack_id: str, frame: Frame, stored: bytes) -> dict[bytes, bytes]:
        """Return the chunks of a frame whose stored bytes are at hand."""
        key_id = self.packs[pack_id].key_id
        family = self._archive.family(self.checkpoint)
        return open_frame(self._archive.keys.named(family, key_id), frame, stored)

    def root(self, name: str) -> Entry:
        """Return the directory entry that stands for a root, or raise NotFoundError."""
        root = self.checkpoint.roots.get(name)
        if root is None:
            raise NotFoundError(f"the checkpoint has no tree {name}", code="tree_not_found")
        row = {"name": name, "type": "directory", "node": root.node, **root.attributes}
        return parse_entry(row)

    def entries(self, directory: Entry) -> list[Entry]:
        """Return what a directory holds."""
        return parse_node(self.chunk(directory.node))

    def find(self, path: bytes) -> Entry:
        """Return the entry at ``<root>/<path>``; no symbolic link is followed."""
        root, *names = path.strip(b"/").split(b"/")
        entry = self.root(root.decode("utf-8", "replace"))
        for name in names:
            found = self.entries(entry) if entry.kind == "directory" else []
            match = [child for child in found if child.name == name]
            if not match:
                raise NotFoundError(
                    f"the checkpoint has no {path.decode('utf-8', 'replace')}",
                    code="path_not_found",
                )
            entry = match[0]
        return entry

    def content(self, file: Entry, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield a file's bytes from *start* to before *end*, holes as zeros, at most a MiB at a time.

        Only the chunks that hold some of them are read.
        """
        end = file.size if end is None else min(end, file.size)
        at = start
        nexts = [*(offset for offset, _ in file.chunks[1:]), file.size]
        for (offset, chunk), following in zip(file.chunks, nexts, strict=False):
            if following <= at or offset >= end:
                continue
            yield from _zeros(offset - at)
            at = max(at, offset)
            data = self.chunk(chunk)[at - offset : end - offset]
            if data:
                yield data
            at += len(data)
        yield from _zeros(end - at)

    def walk(self, entry: Entry, path: bytes) -> Iterator[tuple[bytes, Entry]]:
        """Yield *entry* and all below it, directories before what they hold."""
        waiting = [(path, entry)]
        while waiting:
            at, found = waiting.pop()
            yield at, found
            if found.kind == "directory":
                children = sorted(self.entries(found), key=lambda e: e.name, reverse=True)
                waiting += [(at + b"/" + child.name, child) for child in children]


def differences(before: Reading, after: Reading) -> Iterator[Difference]:
    """Yield what differs, in order of path; directories that are alike are not looked into."""
    names = before.checkpoint.roots.keys() | after.checkpoint.roots.keys()
    waiting: list[tuple[bytes, Entry | None, Entry | None]] = [
        (name.encode(), _root(before, name), _root(after, name))
        for name in sorted(names, reverse=True)
    ]
    while waiting:
        path, old, new = waiting.pop()
        if old == new:
            continue
        if old is None or new is None or _apart(old) != _apart(new):
            yield Difference(path, old, new)
        inner = _children(before, old), _children(after, new)
        if old is not None and new is not None and old.node == new.node:
            continue
        waiting += [
            (path + b"/" + name, inner[0].get(name), inner[1].get(name))
            for name in sorted(inner[0].keys() | inner[1].keys(), reverse=True)
        ]


def _root(reading: Reading, name: str) -> Entry | None:
    return reading.root(name) if name in reading.checkpoint.roots else None


def _apart(entry: Entry) -> Entry:
    """Return *entry* without what changes in a directory whenever something in it does."""
    return replace(entry, node=b"", mtime_ns=0) if entry.kind == "directory" else entry


def _children(reading: Reading, entry: Entry | None) -> dict[bytes, Entry]:
    if entry is None or entry.kind != "directory":
        return {}
    return {child.name: child for child in reading.entries(entry)}


def _zeros(count: int) -> Iterator[bytes]:
    block = bytes(1 << 20)
    while count > 0:
        yield block[:count]
        count -= len(block)
