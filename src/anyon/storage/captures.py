"""Capturing the files of one directory after the other, as far as they changed.

How a file looked (size, times, number, …) is kept with what it became; one that looks the same
is not read again, whatever its size. One that is too large to be read while everything stands
still is put off, and read when the project runs again: if it looks afterwards as it did, it is
of that instant all the same.
"""

import json
import os
import stat
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from anyon.storage import contents
from anyon.storage.knowledge import FolderFacts, KnowledgeDamagedError
from anyon.storage.trees import attributes_text
from anyon.storage.uploads import Uploads
from anyon.storage.visits import Report, Visited, look_of_folder

RACY_NS = 50_000_000
"""How long after a change a second one may leave the same time: well over a kernel tick."""
MAPPED_BYTES = 256 << 20
"""A mapped file beyond this size is believed by its times: it is not read for every checkpoint."""
SETTLED_BYTES = 16 << 20
"""A file from this size on is read once it is older than ``RACY_NS``: a moment's wait, not a second reading."""
LATE_BYTES = 1 << 30
"""A file beyond it that changed is not read in the pause: a pause has seconds at most."""
_LOOKS = struct.Struct("<IIIqqqQQ")
Listing = list[tuple[str, os.stat_result]]


@dataclass(frozen=True, slots=True)
class _Late:
    """A file that is yet to be read, and its place among its directory's entries."""

    folder: Visited
    index: int
    name: str
    looks: os.stat_result


class Captures:
    """What the directories of one tree became; new contents go to the uploads."""

    def __init__(
        self,
        tree: str,
        *,
        known: Mapping[bytes, FolderFacts],
        kept: Callable[[bytes], bytes | None],
        uploads: Uploads,
        report: Report,
    ) -> None:
        self._tree = tree
        self._known = known
        self._kept = kept
        self._uploads = uploads
        self._report = report
        self.contents: dict[bytes, bytes] = {}
        """What is to be kept of the directories that were read anew."""
        self.young_ns = 0
        """What changed since is not trusted the next time."""
        self.mapped: set[int] = set()
        """The numbers of files whose times say nothing."""
        self.puts_off = False
        """Whether large files are left for ``read_late``."""
        self.late: list[_Late] = []

    def own(self, folder: Visited, fd: int) -> None:
        """Capture the attributes of the directory itself."""
        st = os.fstat(fd)
        own = look_of_folder(st)
        before = self._known.get(folder.key)
        if before is not None and before.own == own:
            folder.attributes = before.attributes
        else:
            folder.attributes = attributes_text(
                st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns, contents.xattrs(fd)
            )
        folder.own = own if st.st_ctime_ns < self.young_ns else b""

    def take(self, folder: Visited, fd: int, listing: Listing) -> bool:
        """Capture the files of *folder*; say whether all of them were still there."""
        looks = blake3(
            b"".join([packed(s) + n.encode("utf-8", "surrogateescape") + b"/" for n, s in listing])
        ).digest()
        is_mapped = bool(self.mapped) and any(st.st_ino in self.mapped for _, st in listing)
        if folder.entries is not None and folder.looks == looks and not is_mapped:
            return True  # as it was at this scan's last visit
        before = self._known.get(folder.key)
        if before is not None and before.looks == looks and not is_mapped:
            self._as_before(folder, before)
            return True
        is_young = any(st.st_ctime_ns >= self.young_ns for _, st in listing)
        folder.looks = b"" if is_young else looks
        return self._read(folder, fd, listing)

    def assume(self, folder: Visited) -> bool:
        """Take *folder* as it was in the last checkpoint, files and attributes; False if that is not known."""
        before = self._known.get(folder.key)
        if before is None or not before.looks or not before.own:
            return False
        folder.own, folder.attributes = before.own, before.attributes
        self._as_before(folder, before)
        return True

    def _as_before(self, folder: Visited, before: FolderFacts) -> None:
        folder.looks, folder.entries = before.looks, None
        self.contents.pop(folder.key, None)
        folder.files, folder.bytes = before.files, before.bytes
        folder.unreadable = before.unreadable

    def _read(self, folder: Visited, fd: int, listing: Listing) -> bool:
        old = self._remembered(folder.key)
        self.late = [late for late in self.late if late.folder is not folder]
        kept: dict[str, list[object]] = {}
        folder.entries, folder.chunks = [], set()
        folder.files = folder.bytes = folder.unreadable = 0
        is_whole = True
        for name, st in listing:
            if stat.S_ISDIR(st.st_mode):
                continue
            looks = packed(st).hex()
            row = old.get(name)
            is_old = True  # or it would not have been kept
            is_mapped = st.st_ino in self.mapped and st.st_size <= MAPPED_BYTES
            if row is None or row[0] != looks or is_mapped:
                if self.puts_off and st.st_size > LATE_BYTES and stat.S_ISREG(st.st_mode):
                    self.late.append(_Late(folder, len(folder.entries), name, st))
                    folder.entries.append("")
                    folder.looks = b""
                    continue
                if st.st_size >= SETTLED_BYTES and not self.puts_off:
                    is_old = _settle(st)
                else:
                    is_old = st.st_ctime_ns < self.young_ns
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
            if row[0] and is_old:
                kept[name] = row
            elif folder.looks:
                folder.looks = b""
        if not is_whole:
            folder.looks = b""
        self.contents[folder.key] = json.dumps(kept, separators=(",", ":")).encode()
        return is_whole

    def read_late(self, late: _Late, fd: int | None) -> None:
        """Read a file that was put off; *fd* is of its directory, None if that is gone."""
        folder, name = late.folder, late.name
        row = None
        _settle(late.looks)
        with suppress(FileNotFoundError):
            row = None if fd is None else self._capture(folder, fd, name, late.looks)
        if row is None or not row[0]:
            self._report.unstable.append(os.fsdecode(folder.path() + b"/") + name)
        if row is None or folder.entries is None:
            return
        folder.entries[late.index] = row[1]
        folder.chunks.update(bytes.fromhex(chunk) for chunk in row[2])
        folder.files += 1
        folder.bytes += row[3]
        folder.unreadable += row[4]
        if row[0]:
            rows = self._remembered(folder.key) | {name: row}
            self.contents[folder.key] = json.dumps(rows, separators=(",", ":")).encode()

    def _capture(self, folder: Visited, fd: int, name: str, st: os.stat_result) -> list[Any]:
        captured = contents.capture(fd, os.fsencode(name), st, self._uploads)
        if captured.what:
            self.note(folder, name, captured.what)
        if not captured.is_stable:
            self._report.unstable.append(os.fsdecode(folder.path() + b"/") + name)
        if stat.S_ISREG(st.st_mode):
            self._report.read_files += 1
            self._report.read_bytes += captured.size_bytes
        # A file that changed since it was listed is kept under no look: it is read again.
        same = captured.looks is None or packed(captured.looks) == packed(st)
        looks = packed(st).hex() if same and captured.is_stable else ""
        chunks = [chunk.hex() for chunk in captured.chunks]
        return [
            looks,
            captured.text,
            chunks,
            captured.size_bytes,
            int(captured.what == "unreadable"),
        ]

    def _remembered(self, key: bytes) -> dict[str, list[Any]]:
        data = self.contents.get(key) or self._kept(key)
        found: dict[str, list[Any]] = json.loads(data) if data is not None else {}
        return found

    def recall(self, folder: Visited) -> None:
        """Bring back the entries of a directory that is itself as it was."""
        rows = self._remembered(folder.key)
        if len(rows) != folder.files:
            raise KnowledgeDamagedError("what is known of the last checkpoint is incomplete")
        folder.entries = [rows[name][1] for name in sorted(rows)]
        folder.chunks = {bytes.fromhex(chunk) for row in rows.values() for chunk in row[2]}

    def note(self, folder: Visited, name: str, what: str) -> None:
        """Report an entry that is not captured as what it is."""
        if len(self._report.skipped) < 1000:
            parts = (self._tree, os.fsdecode(folder.path()), name)
            self._report.skipped.append(("/".join(part for part in parts if part), what))


def _settle(st: os.stat_result) -> bool:
    """Wait until a second change of the file would leave another time than the one it has; True then."""
    while (age := time.time_ns() - st.st_ctime_ns) <= RACY_NS:
        if age < 0:
            return False  # from the future: nothing is known of such a clock
        time.sleep((RACY_NS - age) / 1e9 + 0.001)
    return True


def packed(st: os.stat_result) -> bytes:
    """Return how an entry looks, for comparing."""
    return _LOOKS.pack(
        st.st_mode, st.st_uid, st.st_gid, st.st_size, st.st_mtime_ns, st.st_ctime_ns,
        st.st_ino, st.st_nlink,
    )  # fmt: skip
