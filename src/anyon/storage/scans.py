"""Reading a live tree: what changed since the last checkpoint, file by file.

The walk is iterative and goes by descriptors; nothing is followed through a symbolic link,
nothing blocks on a FIFO. A directory whose entries all look as they did is not read again.
Entries younger than the scan are not trusted the next time (git's "racy" rule).

In a git repository the order matters, for others write meanwhile: refs first, then HEAD,
index and packed-refs, objects last and packs the very last. So whatever a captured ref
names is in what is captured later.
"""

import hashlib
import json
import os
import re
import stat
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from blake3 import blake3

from anyon.domain.errors import InvalidInputError
from anyon.storage import contents
from anyon.storage.exclusions import Rules
from anyon.storage.folders import Descriptors, Folder
from anyon.storage.knowledge import FolderFacts, KnowledgeDamagedError
from anyon.storage.trees import attributes_text, name_text, node_text
from anyon.storage.uploads import Stop, Uploads

RACY_NS = 50_000_000
"""How long after a change a second one may leave the same time: well over a kernel tick."""
MAX_ENTRIES = 5_000_000
_SETTLING_ROUNDS = 20
_LOOKS = struct.Struct("<IIIqqqQQ")
_OWN = struct.Struct("<IIIqqQ")
_GIT_FOLDERS = {"info", "logs", "modules", "refs", "reftable", "worktrees"}
_GIT_LOCK = re.compile(r"(index|config|packed-refs|shallow|[A-Z_]*HEAD)\.lock")


@dataclass(slots=True)
class Report:
    """What a scan met that could not be captured as it is."""

    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(path, what): sockets, FIFOs, devices and unreadable files of what was read; at most 1,000."""
    unstable: list[str] = field(default_factory=list)
    """Files that changed while they were read, each time they were tried."""
    read_files: int = 0
    read_bytes: int = 0


class _Visited(Folder):
    """A directory of this scan."""

    __slots__ = (
        "attributes", "bytes", "chunks", "entries", "files", "git", "is_same", "key", "looks",
        "lost", "node", "own", "rules", "subfolders", "unreadable",
    )  # fmt: skip

    def __init__(
        self, parent: "_Visited | None", name: bytes, rules: Rules | None, git: str
    ) -> None:
        super().__init__(parent, name)
        above: bytes = parent.key if parent is not None else b""
        self.key: bytes = hashlib.blake2b(above + b"/" + name, digest_size=16).digest()
        self.rules = rules
        self.git = git
        self.subfolders: dict[str, _Visited] = {}
        self.looks = b""
        self.own = b""
        self.attributes = ""
        self.entries: list[str] | None = None
        self.chunks: set[bytes] = set()
        self.files = self.bytes = self.unreadable = 0
        self.node = b""
        self.is_same = False
        """Its node and its own attributes are as they were."""
        self.lost = ""
        """Why it could not be opened since its parent was listed: ``gone`` or ``unreadable``."""


class Scan:
    """One reading of one root."""

    def __init__(
        self,
        root_name: str,
        root: bytes,
        *,
        rules: Rules | None,
        known: Mapping[bytes, FolderFacts],
        kept: Callable[[bytes], bytes | None],
        uploads: Uploads,
        stop: Stop,
        report: Report,
    ) -> None:
        self.name = root_name
        self._known = known
        self._kept = kept
        self._uploads = uploads
        self._stop = stop
        self._report = report
        self._descriptors = Descriptors(root)
        self._top = _Visited(None, root_name.encode(), rules, "")
        self._all: list[_Visited] = []
        self._waiting: list[_Visited] = [self._top]
        self._late: list[_Visited] = []
        self._latest: list[_Visited] = []
        self._prepared: set[_Visited] = set()
        self._entries = 0
        self._young = time.time_ns() - RACY_NS
        self.closed_folders = 0
        """Directories that could not be opened, and so are not kept."""
        self.contents: dict[bytes, bytes] = {}
        """What is to be kept of the directories that were read anew."""
        self.folders: dict[bytes, FolderFacts] = {}
        """The whole tree, after ``nodes``."""

    def read(self) -> None:
        """Walk the tree; new contents go to the uploads."""
        try:
            while self._waiting or self._late or self._latest:
                if not self._waiting:
                    later = self._late or self._latest
                    self._waiting.append(later.pop())
                self._stop.check()
                self._visit(self._waiting.pop())
        finally:
            self._descriptors.close()

    def nodes(self) -> None:
        """Give the nodes of all changed directories to the uploads, leaves first."""
        for folder in reversed(self._all):
            before = self._known.get(folder.key)
            children = folder.subfolders.values()
            if before is not None and folder.entries is None:
                if all(child.is_same for child in children):
                    folder.node = before.node
                    folder.is_same = folder.attributes == before.attributes
                    continue
                self._recall(folder)
            there = [_entry_of(child) for child in children if child.lost != "gone"]
            node = node_text(folder.entries or (), there)
            folder.node = self._uploads.add(node, is_node=True)
            folder.chunks.add(folder.node)
            folder.entries = []

    def facts(self) -> None:
        """Fill ``folders``; every chunk must be in the store by now."""
        for folder in self._all:
            before = self._known.get(folder.key)
            if before is not None and folder.entries is None:
                if folder.is_same and folder.own == before.own:
                    self.folders[folder.key] = before
                else:
                    self.folders[folder.key] = replace(
                        before, own=folder.own, attributes=folder.attributes
                    )
                continue
            self.folders[folder.key] = FolderFacts(
                looks=folder.looks,
                own=folder.own,
                attributes=folder.attributes,
                node=folder.node,
                packs=frozenset(self._uploads.pack_of(chunk) for chunk in folder.chunks),
                files=folder.files,
                bytes=folder.bytes,
                unreadable=folder.unreadable,
            )

    @property
    def top(self) -> tuple[str, str]:
        """The top node's id, and the top directory's own attributes, encoded."""
        return self._top.node.hex(), self._top.attributes

    def _visit(self, folder: _Visited) -> None:
        try:
            fd = self._descriptors.fd(folder)
        except OSError as error:
            if folder.parent is None:
                raise
            folder.lost = "unreadable" if isinstance(error, PermissionError) else "gone"
            if folder.lost == "unreadable":
                self.closed_folders += 1
                self._note(folder, "", folder.lost)
            return
        listing = self._listing(folder, fd)
        if folder not in self._prepared:
            self._all.append(folder)  # before its refs: parents stand before their children
            names = [name for name, _ in listing]
            if "HEAD" in names and "objects" in names and "refs" in names:
                self._prepared.add(folder)
                folder.git = folder.git or "git"
                self._waiting += [folder, self._child(folder, "refs")]
                return
        self._own(folder, fd)
        for _ in range(_SETTLING_ROUNDS):
            is_whole = self._take(folder, fd, listing)
            if folder.git != "pack":
                break
            again = self._listing(folder, fd)
            if is_whole and [name for name, _ in again] == [name for name, _ in listing]:
                break
            listing = again
        else:
            self._report.unstable.append(os.fsdecode(folder.path()))
        self._descend(folder, listing)

    def _listing(self, folder: _Visited, fd: int) -> list[tuple[str, os.stat_result]]:
        rules, git = folder.rules, folder.git
        found = []
        with os.scandir(fd) as entries:
            for entry in entries:
                name = entry.name
                if git and self._is_passing(folder, name):
                    continue
                if rules is not None and rules.excludes(name):
                    continue
                try:
                    found.append((name, entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue
        self._entries += len(found)
        if self._entries > MAX_ENTRIES:
            raise InvalidInputError(
                f"there are more than {MAX_ENTRIES} files", code="tree_too_large"
            )
        found.sort()  # by name: no name comes twice
        return found

    def _own(self, folder: _Visited, fd: int) -> None:
        st = os.fstat(fd)
        own = _OWN.pack(st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns, st.st_ctime_ns, st.st_ino)
        before = self._known.get(folder.key)
        if before is not None and before.own == own:
            folder.attributes = before.attributes
        else:
            folder.attributes = attributes_text(
                st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns, contents.xattrs(fd)
            )
        folder.own = own if st.st_ctime_ns < self._young else b""

    def _take(self, folder: _Visited, fd: int, listing: list[tuple[str, os.stat_result]]) -> bool:
        """Capture the files of *folder*; say whether all of them were still there."""
        looks = blake3(
            b"".join([_packed(s) + n.encode("utf-8", "surrogateescape") + b"/" for n, s in listing])
        ).digest()
        before = self._known.get(folder.key)
        if before is not None and before.looks == looks:
            folder.looks, folder.entries = before.looks, None
            folder.files, folder.bytes = before.files, before.bytes
            folder.unreadable = before.unreadable
            return True
        is_young = any(st.st_ctime_ns >= self._young for _, st in listing)
        folder.looks = b"" if is_young else looks
        return self._read(folder, fd, listing)

    def _read(self, folder: _Visited, fd: int, listing: list[tuple[str, os.stat_result]]) -> bool:
        old = self._remembered(folder.key)
        kept: dict[str, list[object]] = {}
        folder.entries, folder.chunks = [], set()
        folder.files = folder.bytes = folder.unreadable = 0
        is_whole = True
        for name, st in listing:
            if stat.S_ISDIR(st.st_mode):
                continue
            looks = _packed(st).hex()
            row = old.get(name)
            if row is None or row[0] != looks:
                try:
                    row = self._capture(folder, fd, name, st)
                except FileNotFoundError:
                    is_whole = False
                    continue
            folder.entries.append(row[1])
            folder.chunks.update(bytes.fromhex(chunk) for chunk in row[2])
            folder.files += 1
            folder.bytes += row[3]
            folder.unreadable += row[4]
            if row[0] and st.st_ctime_ns < self._young:
                kept[name] = row
            elif folder.looks:
                folder.looks = b""
        if not is_whole:
            folder.looks = b""
        self.contents[folder.key] = json.dumps(kept, separators=(",", ":")).encode()
        return is_whole

    def _capture(self, folder: _Visited, fd: int, name: str, st: os.stat_result) -> list[Any]:
        captured = contents.capture(fd, os.fsencode(name), st, self._uploads)
        if captured.what:
            self._note(folder, name, captured.what)
        if not captured.is_stable:
            self._report.unstable.append(os.fsdecode(folder.path() + b"/") + name)
        if stat.S_ISREG(st.st_mode):
            self._report.read_files += 1
            self._report.read_bytes += captured.size_bytes
        # A file that changed since it was listed is kept under no look: it is read again.
        same = captured.looks is None or _packed(captured.looks) == _packed(st)
        looks = _packed(st).hex() if same and captured.is_stable else ""
        chunks = [chunk.hex() for chunk in captured.chunks]
        return [
            looks,
            captured.text,
            chunks,
            captured.size_bytes,
            int(captured.what == "unreadable"),
        ]

    def _descend(self, folder: _Visited, listing: list[tuple[str, os.stat_result]]) -> None:
        names = [name for name, st in listing if stat.S_ISDIR(st.st_mode)]
        former = folder.subfolders
        folder.subfolders = {}
        for name in names:
            if name in former:
                folder.subfolders[name] = former[name]
                continue
            child = self._child(folder, name)
            if child.git == "objects":
                self._late.append(child)
            elif child.git == "pack":
                self._latest.append(child)
            else:
                self._waiting.append(child)

    def _child(self, folder: _Visited, name: str) -> _Visited:
        git = folder.git
        if git == "git":
            if folder in self._prepared:
                git = "objects" if name == "objects" else "git" if name in _GIT_FOLDERS else ""
        elif git == "objects":
            git = "pack" if name == "pack" else "loose"
        rules = folder.rules.inside(name) if folder.rules is not None else None
        child = _Visited(folder, os.fsencode(name), rules, git)
        folder.subfolders[name] = child
        return child

    def _remembered(self, key: bytes) -> dict[str, list[Any]]:
        data = self._kept(key) if key in self._known else None
        found: dict[str, list[Any]] = json.loads(data) if data is not None else {}
        return found

    def _recall(self, folder: _Visited) -> None:
        """Bring back the entries of a directory that is itself as it was."""
        rows = self._remembered(folder.key)
        if len(rows) != folder.files:
            raise KnowledgeDamagedError("what is known of the last checkpoint is incomplete")
        folder.entries = [rows[name][1] for name in sorted(rows)]
        folder.chunks = {bytes.fromhex(chunk) for row in rows.values() for chunk in row[2]}

    def _is_passing(self, folder: _Visited, name: str) -> bool:
        """Say whether a file is one of git's own that live for a moment only."""
        if folder.git in {"objects", "pack", "loose"} and name.startswith(("tmp_", ".tmp-")):
            return True
        if not name.endswith(".lock"):
            return False
        # At the top of what looks like a repository others may keep a lock file of theirs.
        return folder not in self._prepared or _GIT_LOCK.fullmatch(name) is not None

    def _note(self, folder: _Visited, name: str, what: str) -> None:
        if len(self._report.skipped) < 1000:
            parts = (self.name, os.fsdecode(folder.path()), name)
            self._report.skipped.append(("/".join(part for part in parts if part), what))


def _entry_of(folder: _Visited) -> str:
    name = name_text(folder.name)
    if folder.lost:
        return f'{{{name},"type":"skipped","what":"unreadable"}}'
    return f'{{{name},"type":"directory",{folder.attributes},"node":"{folder.node.hex()}"}}'


def _packed(st: os.stat_result) -> bytes:
    return _LOOKS.pack(
        st.st_mode, st.st_uid, st.st_gid, st.st_size, st.st_mtime_ns, st.st_ctime_ns,
        st.st_ino, st.st_nlink,
    )  # fmt: skip
