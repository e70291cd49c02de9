"""Taking a checkpoint: scan, upload, write the record, move the head; in this order always.

Whatever fails, the former checkpoint is untouched: at worst there are objects that nothing
refers to, which garbage collection finds.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import anyon
from anyon.domain.errors import InvalidInputError, NotFoundError
from anyon.failpoints import reached
from anyon.storage import glances
from anyon.storage.archives import Archive, OwnershipLostError
from anyon.storage.exclusions import Rules
from anyon.storage.glances import Glance, Seen
from anyon.storage.holders import Held, held_by
from anyon.storage.journals import Journal
from anyon.storage.knowledge import FolderFacts, Knowledge, Whole
from anyon.storage.records import Checkpoint, Head, Root, new_checkpoint_id
from anyon.storage.scans import Scan
from anyon.storage.stillness import Stillness
from anyon.storage.uploads import SMALL_PACK_BYTES, Stop, Uploads, mark_of
from anyon.storage.visits import Report
from anyon.urgency import urgent

PRECOPY_ROUNDS = 4
PROGRESS_SECONDS = 0.2
MAX_SMALL_PACKS = 64
"""Beyond it, what lies in small packs is written anew into few: many small saves made them."""
PRECOPY_ENOUGH_BYTES = 16 << 20
PRECOPY_ENOUGH_SECONDS = 0.02
JOURNALLED = frozenset({"workspace", "home"})
"""The trees that a container has as they are. Through an overlay, as ``system`` is written, the
kernel tells nobody what happens in its upper layer."""
Glancing = Callable[[bytes, Rules | None, Seen | None], Glance]
Freezing = Callable[[], AbstractContextManager[Stillness | None]]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a save is."""

    files: int
    """Files read so far, those that changed; how many there will be is not known before."""
    read_bytes: int
    new_bytes: int
    """Of those, what the store has by now, compressed."""
    total_bytes: int = 0
    """About how many will be read, as a look at the trees had it; 0 while or where nothing tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be saved, and how."""

    trees: Mapping[str, Path]
    bases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    reason: str
    check: Callable[[], None] | None = None
    """Raises where what was read is not to be confirmed; asked once all is read."""
    at: datetime
    epoch: int = 0
    owner: str = ""
    records: bytes = b""
    freeze: Freezing | None = None
    rules: Mapping[str, Rules] = field(default_factory=dict)
    workers: int = 3
    journalled: frozenset[str] = JOURNALLED
    journal: Callable[[], Journal] = Journal
    glance: Glancing | None = Glance
    """How trees are looked at before they are walked; None walks them whole."""
    progress: Callable[[Progress], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A confirmed state: when this exists, *checkpoint* can be restored anywhere."""

    checkpoint: Checkpoint
    is_new: bool
    """False if nothing had changed and the former checkpoint stands for this state too."""
    report: Report
    pause_seconds: float
    """How long the project was frozen; 0 if it was not."""
    look: str = ""
    """How this save found what had changed; see ``Checkpoint.look``."""


@dataclass(slots=True)
class _State:
    """What is known of the trees at some point of a save."""

    changed: dict[bytes, FolderFacts] = field(default_factory=dict)
    gone: set[bytes] = field(default_factory=set)
    contents: dict[bytes, bytes] = field(default_factory=dict)
    seen: dict[str, Seen | None] = field(default_factory=dict)
    tops: dict[str, Root] = field(default_factory=dict)
    closed_folders: int = 0


class Save:
    """One checkpoint being taken; blocks; call ``run`` once."""

    def __init__(self, archive: Archive, knowledge: Knowledge, wish: Wish, stop: Stop) -> None:
        self._archive = archive
        self._knowledge = knowledge
        self._wish = wish
        self._stop = stop
        self._key = archive.current_key(None)
        self._report = Report()
        self._pause = 0.0
        self._look = ""
        self._told = float("-inf")
        self._total = 0
        self._glances: list[Glance | None] = []
        self._worn: frozenset[int] = frozenset()
        self._seen: Mapping[str, Seen] = {}

    def run(self) -> Saved:
        """Take the checkpoint and return it once it is durable."""
        if not self._wish.trees:
            raise InvalidInputError("a checkpoint of no tree at all", code="tree_not_found")
        for name, path in self._wish.trees.items():
            if not path.is_dir():
                raise NotFoundError(f"the tree {name} is not there: {path}", code="tree_not_found")
        head, generation = self._archive.head()
        self._check_owner(head)
        parent = self._basis(head)
        small = self._knowledge.small_packs(SMALL_PACK_BYTES)
        self._worn = small if len(small) > MAX_SMALL_PACKS else frozenset()
        uploads = Uploads(
            self._archive.store,
            self._archive.places,
            self._key,
            known=self._pack_of,
            first_number=self._knowledge.next_number(),
            workers=self._wish.workers,
            mark=mark_of(generation, self._wish.epoch, self._wish.owner, self._wish.at),
            tell=lambda: self._tell(uploads),
        )
        try:
            state = self._capture(uploads)
            records = uploads.add(self._wish.records, is_node=True) if self._wish.records else None
            uploads.flush()
            reached("checkpoint.packs_durable")
        except (
            FileNotFoundError
        ) as error:  # a whole tree: what goes inside of one is just not in it
            raise NotFoundError(
                f"a tree went away while it was read: {error}", code="tree_not_found"
            ) from error
        finally:
            uploads.close()
        if self._wish.check is not None:
            self._wish.check()
        is_new = self._differs(parent, state, records)
        checkpoint = parent
        whole = self._knowledge.whole(state.changed, state.gone)
        if checkpoint is None or is_new:
            checkpoint = self._checkpoint(parent, state, whole, records, uploads)
            self._confirm(checkpoint, generation)
        self._learn(checkpoint, state, whole, uploads)
        reached("checkpoint.known")
        return Saved(
            checkpoint=checkpoint,
            is_new=is_new,
            report=self._report,
            pause_seconds=self._pause,
            look=self._look,
        )

    def _tell(self, uploads: Uploads) -> None:
        now = time.monotonic()
        if self._wish.progress is not None and now - self._told >= PROGRESS_SECONDS:
            self._told = now
            read = uploads.taken_bytes
            total = max(self._total, read) if self._total else 0  # more is written meanwhile
            self._wish.progress(Progress(self._report.read_files, read, uploads.new_bytes, total))

    def _pack_of(self, chunk: bytes) -> int | None:
        number = self._knowledge.pack_of(chunk)
        return None if number in self._worn else number

    def _check_owner(self, head: Head | None) -> None:
        if head is not None and head.epoch > self._wish.epoch:
            raise OwnershipLostError(
                f"{self._archive.project} belongs to epoch {head.epoch} ({head.owner}), "
                f"this server is of epoch {self._wish.epoch}",
                hint="Another server took the project over; this one must not write it.",
            )

    def _basis_name(self, checkpoint_id: str) -> str:
        return f"{checkpoint_id} {self._key.id.hex()}"

    def _basis(self, head: Head | None) -> Checkpoint | None:
        """Return the checkpoint to build on, and make what is known fit it."""
        if head is None or head.checkpoint is None:
            self._knowledge.forget()
            return None
        parent = self._archive.checkpoint(head.checkpoint)
        self._key = self._archive.current_key(parent)
        if self._knowledge.basis != self._basis_name(parent.id):
            indexes = self._archive.pack_indexes(parent, self._stop.check)
            # Chunks under another key have other names: they are of no use.
            self._knowledge.forget(pack for pack in indexes if pack.key_id == self._key.id)
        return parent

    def _capture(self, uploads: Uploads) -> _State:
        # A directory with a part in a worn pack is read anew, as if it had changed.
        folders = self._knowledge.folders
        known: Mapping[bytes, FolderFacts] = folders
        if self._worn:
            known = {k: f for k, f in folders.items() if not f.packs & self._worn}
        self._seen = glances.load(self._knowledge.glances, self._knowledge.basis)
        with ExitStack() as stack:
            scans = [self._scan(name, uploads, known, stack) for name in sorted(self._wish.trees)]
            for scan in scans:
                scan.look()
            if self._wish.progress is not None and not self._worn:
                self._total = glances.new_bytes(self._glances)
            is_lazy = self._wish.freeze is None and not self._worn
            is_lazy &= self._seen.keys() == self._wish.trees.keys()
            is_lazy &= all(scan.is_glanced for scan in scans)
            if not is_lazy:
                folders.load()
            for scan in scans:
                scan.read(lazily=is_lazy)
            if self._wish.freeze is not None:
                self._settle(scans, uploads, self._wish.freeze)
        state = self._state(scans, uploads)
        if is_lazy:
            state.gone = set().union(*(scan.gone() for scan in scans))
        else:
            state.gone = folders.keys() - set().union(*(scan.keys for scan in scans))
        return state

    def _scan(
        self, name: str, uploads: Uploads, known: Mapping[bytes, FolderFacts], stack: ExitStack
    ) -> Scan:
        journal = glance = None
        if self._wish.freeze is not None and name in self._wish.journalled:
            journal = stack.enter_context(closing(self._wish.journal()))
        root, rules = bytes(self._wish.trees[name]), self._wish.rules.get(name)
        if self._wish.glance is not None and not self._worn:
            glance = self._wish.glance(root, rules, self._seen.get(name))
        self._glances.append(glance)
        return Scan(
            name,
            root,
            rules=rules,
            known=known,
            kept=self._kept,
            uploads=uploads,
            stop=self._stop,
            report=self._report,
            journal=journal,
            glance=glance,
        )

    def _kept(self, key: bytes) -> bytes | None:
        data = self._knowledge.contents(key)
        facts = self._knowledge.folders.get(key)
        if data is None or facts is None or not facts.packs & self._worn:
            return data
        # Of a directory that is written anew, what is large and lies well is not read again.
        rows = {
            name: row
            for name, row in json.loads(data).items()
            if row[3] > SMALL_PACK_BYTES and all(self._lies_well(chunk) for chunk in row[2])
        }
        return json.dumps(rows).encode()

    def _lies_well(self, chunk: str) -> bool:
        return self._pack_of(bytes.fromhex(chunk)) is not None

    def _settle(self, scans: Sequence[Scan], uploads: Uploads, freeze: Freezing) -> None:
        """Copy what changed meanwhile until that is little, and the rest while nothing runs."""
        uploads.rest()  # what it puts on the disk would hold up the freeze of whoever waits for that
        last = PRECOPY_ENOUGH_BYTES
        for _ in range(PRECOPY_ROUNDS):
            before, began = self._report.read_bytes, time.monotonic()
            knew = [scan.catch_up(Held()) for scan in scans if scan.is_followed]
            reached("checkpoint.precopied")
            read, took = self._report.read_bytes - before, time.monotonic() - began
            is_little = read < PRECOPY_ENOUGH_BYTES and took < PRECOPY_ENOUGH_SECONDS
            if not all(knew) or is_little or read > last:
                break  # enough, or more is written than another round would save
            last = max(read, PRECOPY_ENOUGH_BYTES)
        self._report.unstable.clear()
        self._report.skipped.clear()
        uploads.is_holding = True
        with urgent(), freeze() as still:
            began = time.monotonic() if still is None else still.since
            pids = None if still is None else still.pids()
            held = None if pids is None else held_by(pids)
            knew = [scan.catch_up(held) for scan in scans]
            reached("checkpoint.still")
        self._pause = time.monotonic() - began
        uploads.is_holding = False
        self._look = "journal" if any(knew) else "scan"
        for scan in scans:
            scan.read_late()

    def _state(self, scans: Sequence[Scan], uploads: Uploads) -> _State:
        for scan in scans:
            scan.nodes()
        uploads.flush()
        state = _State()
        for scan in scans:
            scan.facts()
            state.changed.update(scan.changed)
            state.contents |= {k: c for k, c in scan.contents.items() if k in scan.keys}
            state.seen[scan.name] = scan.seen()
            node, attributes = scan.top
            base = dict(self._wish.bases.get(scan.name, {}))
            state.tops[scan.name] = Root(node, json.loads(f"{{{attributes}}}"), base)
            state.closed_folders += scan.closed_folders
        return state

    def _learn(self, checkpoint: Checkpoint, state: _State, whole: Whole, uploads: Uploads) -> None:
        """Keep what is known now for the next save."""
        basis = self._basis_name(checkpoint.id)
        was = self._knowledge.basis
        live = set(whole.packs)
        if checkpoint.records is not None:  # what did not change is not put again either
            live.add(uploads.pack_of(bytes.fromhex(checkpoint.records)))
        self._knowledge.replace(
            basis,
            state.changed,
            state.gone,
            state.contents,
            new_packs=uploads.packs,
            live=live,
        )
        seen = {n: new or self._seen.get(n) for n, new in state.seen.items()}
        kept = {name: each for name, each in seen.items() if each is not None}
        if kept != self._seen or basis != was:
            glances.keep(self._knowledge.glances, basis, kept)

    def _differs(self, parent: Checkpoint | None, state: _State, records: bytes | None) -> bool:
        if parent is None:
            return True
        wanted = records.hex() if records is not None else None
        return parent.roots != state.tops or parent.records != wanted

    def _checkpoint(
        self,
        parent: Checkpoint | None,
        state: _State,
        whole: Whole,
        records: bytes | None,
        uploads: Uploads,
    ) -> Checkpoint:
        numbers = set(whole.packs)
        if records is not None:
            numbers.add(uploads.pack_of(records))
        new = {number: (pack.id, pack.size_bytes) for number, pack in uploads.packs.items()}
        places = [new.get(n) or self._knowledge.pack(n) for n in sorted(numbers)]
        own = {pack_id for pack_id, _ in new.values()}
        lent = parent.borrowed if parent is not None else {}
        at = self._wish.at
        if parent is not None:
            # A clock that went back must not make the newest look older.
            at = max(at, parent.at + timedelta(milliseconds=1))
        return Checkpoint(
            id=new_checkpoint_id(at),
            project=self._archive.project,
            parent=parent.id if parent is not None else None,
            at=at,
            reason=self._wish.reason,
            epoch=self._wish.epoch,
            roots=state.tops,
            files=whole.files,
            size_bytes=whole.bytes,
            new_bytes=uploads.new_bytes,
            packs=dict(places),
            records=records.hex() if records is not None else None,
            unreadable=state.closed_folders + whole.unreadable,
            look=self._look,
            unstable=len(self._report.unstable),
            tool=f"anyon {anyon.__version__}",
            family=parent.family if parent is not None else "",
            borrowed={p: lent[p] for p, _ in places if p in lent and p not in own},
        )

    def _confirm(self, checkpoint: Checkpoint, generation: str) -> None:
        self._stop.check()
        self._archive.add_checkpoint(checkpoint)
        reached("checkpoint.record_written")
        head = Head(checkpoint.id, self._wish.epoch, checkpoint.at, self._wish.owner)
        self._archive.move_head(head, generation)
        reached("checkpoint.head_moved")
