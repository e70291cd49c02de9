"""Reading a live tree: what changed since the last checkpoint, file by file.

The walk is iterative and goes by descriptors; nothing is followed through a symbolic link,
nothing blocks on a FIFO. A directory whose entries all look as they did is not read again.
Entries younger than the scan are not trusted the next time (git's "racy" rule).

In a git repository the order matters, for others write meanwhile: refs first, then HEAD,
index and packed-refs, objects last and packs the very last. So whatever a captured ref
names is in what is captured later.

Where a glance at the whole tree shows that nothing in a directory changed, it is not visited;
but of a git repository in which anything changed all is, in that order.

A scan can be brought up to date: with a journal by visiting again what that names, else by
visiting everything again. Done while nothing runs, the result is of that instant.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace

from anyon.domain.errors import InvalidInputError
from anyon.storage.captures import RACY_NS, Captures, Listing
from anyon.storage.exclusions import Rules
from anyon.storage.folders import Descriptors
from anyon.storage.glances import TOP, Glance, Seen
from anyon.storage.holders import Held
from anyon.storage.journals import Journal
from anyon.storage.knowledge import FolderFacts
from anyon.storage.trees import node_text
from anyon.storage.uploads import Stop, Uploads
from anyon.storage.visits import Report, Visited, doubtful, look_of_folder, vanished, walk

MAX_ENTRIES = 5_000_000
_SETTLING_ROUNDS = 20
_COLLECT_EVERY = 32


class Scan:
    """One reading of one root; it may be brought up to date any number of times before ``nodes``."""

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
        journal: Journal | None = None,
        glance: Glance | None = None,
    ) -> None:
        self.name = root_name
        self._root = root
        self._known = known
        self._uploads = uploads
        self._stop = stop
        self._report = report
        self._journal = journal
        self._glance = glance
        self._is_lazy = False
        self._prepared: dict[Visited, bool] = {}
        self._numbers: Mapping[bytes, list[tuple[int, bool]]] = {}
        self._descriptors: Descriptors
        self._top = Visited(None, root_name, rules, "", 0)
        self._all: list[Visited] = []
        self._waiting: list[Visited] = []
        self._late: list[Visited] = []
        self._latest: list[Visited] = []
        self._visited: list[Visited] = []
        self._dropped: list[Visited] = []
        self._places: dict[int, Visited] = {}
        self._links: dict[int, set[Visited]] = {}
        self._entries = 0
        self._captures = Captures(root_name, known=known, kept=kept, uploads=uploads, report=report)
        self.changed: dict[bytes, FolderFacts] = {}
        """The directories that are not as they were known, after ``facts``."""
        self.keys: set[bytes] = set()
        """All that were visited, after ``facts``."""

    def look(self) -> None:
        """Take the glance at the tree, if there is to be one; with a journal only once that listens."""
        if self._glance is None:
            return
        self._top.place = TOP
        if self._journal is not None and self._glance.has_before:
            self._descriptors = Descriptors(self._root)
            with closing(self._descriptors):
                self._prepare(self._journal, self._glance)
        if not self._glance.look(self._stop):
            self._glance = self._top.place = None
        elif self._prepared:
            self._numbers = self._glance.numbers()

    @property
    def is_glanced(self) -> bool:
        """Whether a glance tells where nothing changed."""
        return self._glance is not None and self._glance.has_before

    def read(self, *, lazily: bool = False) -> None:
        """Walk the tree; new contents go to the uploads.

        *lazily*: not of what a glance shows to be as it was; then ``catch_up`` cannot follow.
        """
        self._is_lazy = lazily
        self._captures.young_ns = time.time_ns() - RACY_NS
        self._descriptors = Descriptors(self._root)
        with closing(self._descriptors):
            if not (lazily and self._is_left(self._top, os.fstat(self._descriptors.fd(self._top)))):
                self._visit_all([self._top])
        self._prepared.clear()

    def catch_up(self, held: Held | None) -> bool:
        """Visit again what may have changed since the last visit; say whether the journal knew what.

        Without a journal that is everything. *held* is what the project's programs have open,
        nothing while they run (another look follows); None where nobody can tell: then
        everything is visited too.
        """
        changed = self._changed(held)
        self._captures.young_ns = time.time_ns() - RACY_NS
        self._captures.mapped = set() if held is None else held.mapped
        self._captures.puts_off = True
        self._descriptors = Descriptors(self._root)  # a kept one might be of what has moved
        with closing(self._descriptors):
            if changed is None:
                self._visit_all(list(walk(self._top)))
                return False
            done: set[Visited] = set()
            while changed:
                self._visited = []
                self._visit_all(sorted(changed, key=lambda folder: folder.depth))
                done.update(self._visited)
                # A file with several names is heard of by one of them only.
                links = {number for folder in self._visited for number in folder.links}
                for folder in self._dropped:
                    links |= folder.links
                self._dropped.clear()
                changed = {f for number in links for f in self._links[number]} - done
        return True

    def read_late(self) -> None:
        """Read the files that ``catch_up`` put off as too large for a pause."""
        self._descriptors = Descriptors(self._root)
        with closing(self._descriptors):
            for late in self._captures.late:
                self._stop.check()
                fd: int | None = None
                with suppress(OSError):  # its directory went: so did the file
                    fd = self._descriptors.fd(late.folder)
                self._captures.read_late(late, fd)
        self._captures.late.clear()

    @property
    def contents(self) -> Mapping[bytes, bytes]:
        """What is to be kept of the directories that were read anew."""
        return self._captures.contents

    @property
    def is_followed(self) -> bool:
        """Whether a journal tells what changes in it."""
        return self._journal is not None and not self._journal.lost

    def gone(self) -> set[bytes]:
        """Return which known directories are not there any more; after ``facts`` of a lazy reading."""
        return set() if self._glance is None else vanished(self._all, self._glance) - self.keys

    def seen(self) -> Seen | None:
        """Return what to keep of the glance, None if there is nothing new; after ``facts``."""
        return self._glance.seen(doubtful(self._all)) if self._glance is not None else None

    def _changed(self, held: Held | None) -> set[Visited] | None:
        if self._journal is None:
            return None
        changed, gone = self._journal.changes()
        for folder in gone:
            if isinstance(folder, Visited):
                folder.inode = 0
        if changed is None or held is None:
            return None
        found = {folder for folder in changed if isinstance(folder, Visited)}
        for number in held.writable:
            if number in self._places:
                found.add(self._places[number])
            found |= self._links.get(number, set())
        return found

    def _visit_all(self, folders: Iterable[Visited]) -> None:
        for folder in folders:
            if not folder.is_attached():
                continue
            self._waiting.append(folder)
            while self._waiting or self._late or self._latest:
                if not self._waiting:
                    later = self._late or self._latest
                    self._waiting.append(later.pop())
                self._stop.check()
                self._visit(self._waiting.pop())

    def nodes(self) -> None:
        """Give the nodes of all changed directories to the uploads, leaves first."""
        self._all = list(walk(self._top))
        for folder in reversed(self._all):
            before = self._known.get(folder.key)
            children = folder.subfolders.values()
            if folder.is_assumed and before is not None:
                folder.node, folder.is_same = before.node, True
                continue
            if before is not None and folder.entries is None:
                if all(child.is_same for child in children):
                    folder.node = before.node
                    folder.is_same = folder.attributes == before.attributes
                    continue
                self._captures.recall(folder)
            there = [child.encoded() for child in children if child.lost != "gone"]
            node = node_text(filter(None, folder.entries or ()), there)  # empty: went while put off
            folder.node = self._uploads.add(node, is_node=True)
            folder.chunks.add(folder.node)
            folder.entries = []

    def facts(self) -> None:
        """Fill ``changed`` and ``keys``; every chunk must be in the store by now."""
        self.keys = {folder.key for folder in self._all}
        for folder in self._all:
            before = self._known.get(folder.key)
            if before is not None and folder.entries is None:
                if not folder.is_same or folder.own != before.own:
                    self.changed[folder.key] = replace(
                        before, own=folder.own, attributes=folder.attributes
                    )
                continue
            self.changed[folder.key] = FolderFacts(
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
    def closed_folders(self) -> int:
        """How many directories could not be opened, and so are not kept; after ``nodes``."""
        return sum(child.lost == "unreadable" for f in self._all for child in f.subfolders.values())

    @property
    def top(self) -> tuple[str, str]:
        """The top node's id, and the top directory's own attributes, encoded."""
        return self._top.node.hex(), self._top.attributes

    def _prepare(self, journal: Journal, glance: Glance) -> None:
        """Have the journal listen to all directories of before, so that a glance can follow."""
        waiting = [self._top]
        while waiting:
            self._stop.check()
            folder = waiting.pop()
            self._prepared[folder] = False
            children = glance.children(folder.place or b"")
            if folder.place is None or {"objects", "refs"} <= {label for label, _ in children}:
                continue  # maybe a git repository: to be visited in its order
            try:
                fd = self._descriptors.fd(folder)
                if folder.inode not in {0, os.fstat(fd).st_ino}:
                    continue
            except OSError:
                continue
            journal.watch(fd, folder)
            self._prepared[folder] = not journal.lost
            if len(self._prepared) % _COLLECT_EVERY == 0:
                journal.collect()
            for label, number in sorted(children):  # as they are listed
                if not folder.leaves_out(label):
                    waiting.append(folder.child(label, number))

    def _is_heard(self, folder: Visited) -> bool:
        """Say whether *folder* is as it was before the journal listened to it, and take it so."""
        if not self._prepared.pop(folder, False) or self._glance is None or folder.place is None:
            return False
        if self._glance.is_touched(folder.place) or not self._captures.assume(folder):
            return False
        self._place(folder, self._numbers.get(folder.place, ()))
        self._waiting += folder.subfolders.values()
        return True

    def _is_left(self, folder: Visited, st: os.stat_result) -> bool:
        """Say whether *folder*, which looks like *st* itself, is left as it was with all below it."""
        if self._glance is None or folder.git or folder.place is None:
            return False
        before = self._known.get(folder.key)
        if before is not None and before.own == look_of_folder(st):
            is_same = not self._glance.is_touched(folder.place)
            folder.is_assumed = is_same and self._captures.assume(folder)
        return folder.is_assumed

    def _visit(self, folder: Visited) -> None:
        if self._prepared and self._is_heard(folder):
            return
        try:
            fd = self._descriptors.fd(folder)
        except OSError as error:
            if folder.parent is None:
                raise
            folder.lost = "unreadable" if isinstance(error, PermissionError) else "gone"
            if folder.lost == "unreadable":
                self._captures.note(folder, "", folder.lost)
            return
        folder.lost = ""
        if self._journal is not None:
            self._journal.watch(fd, folder)  # before it is listed
            self._visited.append(folder)
            if len(self._visited) % _COLLECT_EVERY == 0:
                self._journal.collect()
        listing = self._listing(folder, fd)
        if not folder.is_prepared:
            names = {name: st.st_ino for name, st in listing}
            if "HEAD" in names and "objects" in names and "refs" in names:
                folder.is_prepared = True
                folder.subfolders = {}  # made before it was known what they are
                folder.git = folder.git or "git"
                self._waiting += [folder, folder.child("refs", names["refs"])]
                return
        self._captures.own(folder, fd)
        for _ in range(_SETTLING_ROUNDS):
            is_whole = self._captures.take(folder, fd, listing)
            if folder.git != "pack":
                break
            again = self._listing(folder, fd)
            if is_whole and [name for name, _ in again] == [name for name, _ in listing]:
                break
            listing = again
        else:
            self._report.unstable.append(os.fsdecode(folder.path()))
        self._descend(folder, listing)

    def _listing(self, folder: Visited, fd: int) -> Listing:
        found = []
        is_plain = not folder.git and folder.rules is None
        with os.scandir(fd) as entries:
            for entry in entries:
                if is_plain or not folder.leaves_out(entry.name):
                    try:
                        found.append((entry.name, entry.stat(follow_symlinks=False)))
                    except FileNotFoundError:
                        continue
        self._entries += len(found) - folder.count
        folder.count = len(found)
        if self._entries > MAX_ENTRIES:
            raise InvalidInputError(
                f"there are more than {MAX_ENTRIES} files", code="tree_too_large"
            )
        found.sort()  # by name: no name comes twice
        if self._journal is not None:
            links = [st.st_nlink > 1 and stat.S_ISREG(st.st_mode) for _, st in found]
            self._place(folder, list(zip([st.st_ino for _, st in found], links, strict=True)))
        return found

    def _place(self, folder: Visited, numbers: Sequence[tuple[int, bool]]) -> None:
        """Keep where each file is, by number: what is open in a program is known by that only."""
        links = {number for number, is_link in numbers if is_link}
        if links:
            folder.links |= links
            for number in links:
                # Its only name, when that was visited, may have been another.
                former = self._places.get(number, folder)
                self._links.setdefault(number, set()).update({former, folder})
        self._places.update(dict.fromkeys([number for number, _ in numbers], folder))

    def _descend(self, folder: Visited, listing: Listing) -> None:
        former = folder.subfolders
        folder.subfolders = {}
        for name, st in listing:
            if not stat.S_ISDIR(st.st_mode):
                continue
            same = former.get(name)
            if same is not None and same.inode == st.st_ino and not same.lost:
                folder.subfolders[name] = former.pop(name)
                if same in self._prepared:  # and not visited yet
                    self._waiting.append(same)
                continue
            child = folder.child(name, st.st_ino)
            if self._is_lazy and self._is_left(child, st):
                continue
            if child.git == "objects":
                self._late.append(child)
            elif child.git == "pack":
                self._latest.append(child)
            else:
                self._waiting.append(child)
        for gone in former.values():
            for part in walk(gone):
                self._entries -= part.count
                self._dropped.append(part)
