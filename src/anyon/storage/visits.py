"""The directories of one scan, and what their place in a git repository means for it."""

import hashlib
import os
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from anyon.storage.exclusions import Rules
from anyon.storage.folders import Folder
from anyon.storage.glances import Glance
from anyon.storage.trees import name_text

_GIT_FOLDERS = {"info", "logs", "modules", "refs", "reftable", "worktrees"}
_OWN = struct.Struct("<IIIqqQ")
_PLACED_DEPTH = 100
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


class Visited(Folder):
    """A directory of a scan, from its first visit to the last."""

    __slots__ = (
        "attributes", "bytes", "chunks", "count", "entries", "files", "git", "inode", "is_assumed",
        "is_prepared", "is_same", "key", "label", "links", "looks", "lost", "node", "own", "place",
        "rules", "subfolders", "unreadable",
    )  # fmt: skip

    def __init__(
        self, parent: "Visited | None", label: str, rules: Rules | None, git: str, inode: int
    ) -> None:
        name = os.fsencode(label)
        super().__init__(parent, name)
        above: bytes = parent.key if parent is not None else b""
        self.label = label
        self.key: bytes = hashlib.blake2b(above + b"/" + name, digest_size=16).digest()
        self.rules = rules
        self.git = git
        self.inode = inode
        """Its number when its parent was last listed; 0 if it is known to have ended since."""
        self.is_prepared = False
        """It is the top of a git repository, and its refs have been visited."""
        self.subfolders: dict[str, Visited] = {}
        self.looks = b""
        self.own = b""
        self.attributes = ""
        self.entries: list[str] | None = None
        """Its files, encoded; None if they are as they were in the last checkpoint."""
        self.chunks: set[bytes] = set()
        self.links: frozenset[int] = frozenset()
        """The numbers of its files that had several names at any of the visits."""
        self.count = self.files = self.bytes = self.unreadable = 0
        self.node = b""
        self.is_same = False
        """Its node and its own attributes are as they were."""
        self.is_assumed = False
        """It and all below it are as they were in the last checkpoint, and were not visited."""
        self.place: bytes | None = None
        """Its path below the top, where a glance is used; of the deepest there is none."""
        self.lost = ""
        """Why it could not be opened since its parent was listed: ``gone`` or ``unreadable``."""

    def is_attached(self) -> bool:
        """Say whether it is still a part of the tree, as its parents were last listed."""
        folder: Visited = self
        while isinstance(folder.parent, Visited):
            if folder.parent.subfolders.get(folder.label) is not folder:
                return False
            folder = folder.parent
        return True

    def child(self, label: str, inode: int) -> "Visited":
        """Return a new directory *label* in this one."""
        git = self.git
        if git == "git":
            if self.is_prepared:
                git = "objects" if label == "objects" else "git" if label in _GIT_FOLDERS else ""
        elif git == "objects":
            git = "pack" if label == "pack" else "loose"
        rules = self.rules.inside(label) if self.rules is not None else None
        made = Visited(self, label, rules, git, inode)
        if self.place is not None and self.depth < _PLACED_DEPTH:
            made.place = self.place + b"/" + made.name
        self.subfolders[label] = made
        return made

    def leaves_out(self, name: str) -> bool:
        """Say whether an entry is not captured: by a rule, or as one of git's that live for a moment."""
        if self.git and self._is_passing(name):
            return True
        return self.rules is not None and self.rules.excludes(name)

    def _is_passing(self, name: str) -> bool:
        if self.git in {"objects", "pack", "loose"} and name.startswith(("tmp_", ".tmp-")):
            return True
        if not name.endswith(".lock"):
            return False
        # At the top of what looks like a repository others may keep a lock file of theirs.
        return not self.is_prepared or _GIT_LOCK.fullmatch(name) is not None

    def encoded(self) -> str:
        """Return its entry for the node of its parent."""
        name = name_text(self.name)
        if self.lost:
            return f'{{{name},"type":"skipped","what":"unreadable"}}'
        return f'{{{name},"type":"directory",{self.attributes},"node":"{self.node.hex()}"}}'


def walk(top: Visited) -> Iterator[Visited]:
    """Yield the directories that could be opened, parents before their children."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        if not folder.lost:
            yield folder
            waiting += folder.subfolders.values()


def vanished(folders: Iterable[Visited], glance: Glance) -> set[bytes]:
    """Return the keys of what was below the visited ones of *folders* before and is not among them now."""
    found: set[bytes] = set()
    for folder in folders:
        if folder.place is None or folder.is_assumed:
            continue
        waiting = [
            (Visited(folder, label, None, "", number), folder.place)
            for label, number in glance.children(folder.place)
            if label not in folder.subfolders or folder.subfolders[label].lost
        ]
        while waiting:
            lost, above = waiting.pop()
            found.add(lost.key)
            place = above + b"/" + lost.name
            waiting += [
                (Visited(lost, label, None, "", number), place)
                for label, number in glance.children(place)
            ]
    return found


def doubtful(folders: Iterable[Visited]) -> set[bytes]:
    """Return the places of those that must be visited the next time, whatever they look like then."""
    found: set[bytes] = set()
    for folder in folders:
        if folder.is_assumed or folder.place is None:
            continue
        if not folder.looks or not folder.own:
            found.add(folder.place)
        for child in folder.subfolders.values():
            if child.lost:
                found.add(folder.place + b"/" + child.name)
    return found


def look_of_folder(st: os.stat_result) -> bytes:
    """Return how a directory itself looks, for comparing."""
    return _OWN.pack(st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns, st.st_ctime_ns, st.st_ino)
