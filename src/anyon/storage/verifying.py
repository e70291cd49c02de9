"""Looking whether checkpoints are whole: their structure, or every byte. Damage is named by file."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from anyon.domain import paths
from anyon.domain.errors import NotFoundError
from anyon.storage import packs
from anyon.storage.archives import Archive
from anyon.storage.objects import DamagedError, ObjectNotFoundError
from anyon.storage.readings import Reading
from anyon.storage.records import Checkpoint
from anyon.storage.trees import Entry
from anyon.storage.uploads import Stop

_MOST = 100
_LOOKED_BACK = 30
_KEPT = 1 << 18
"""Of how many directories it is kept that they are whole: some 100 bytes each."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A directory of which every part was found, with all below it."""

    files: int = 0
    packs: int = 0
    """Where these parts lie: the numbers of packs in ``Checks``, as bits."""


@dataclass(slots=True)
class Checks:
    """What was learnt for the verification of several checkpoints of one project.

    All with every byte read, or all without.
    """

    bad: dict[str, frozenset[bytes]] = field(default_factory=dict)
    """Of packs of which every byte was read: the chunks that are damaged."""
    indexes: dict[str, packs.Pack] = field(default_factory=dict)
    whole: dict[bytes, Whole] = field(default_factory=dict)
    """By node, which is named by its content: what is equal in the next checkpoint is not walked again."""
    _numbers: dict[str, int] = field(default_factory=dict)

    def bit(self, place: str) -> int:
        """Return the bit that stands for a pack, by the key of its object."""
        return 1 << self._numbers.setdefault(place, len(self._numbers))

    def keep(self, node: bytes, found: Whole) -> None:
        """Keep that a directory is whole where those packs are; beyond a bound it is forgotten."""
        if len(self.whole) < _KEPT:
            self.whole[node] = found

    def known(self, node: bytes, here: int) -> Whole | None:
        """Return what is known of a directory in a checkpoint that has the packs *here*."""
        found = self.whole.get(node)
        return found if found is not None and found.packs & ~here == 0 else None


@dataclass(frozen=True, slots=True)
class Damage:
    """A file or directory that a checkpoint cannot give back, and the newest earlier one that can."""

    path: bytes
    intact_id: str | None = None
    intact_at: datetime | None = None


@dataclass(slots=True)
class Verified:
    """What a verification saw."""

    files: int = 0
    packs: int = 0
    problems: list[str] = field(default_factory=list)
    """One line for each damage, at most 100; empty if the checkpoint is whole."""
    damaged: list[Damage] = field(default_factory=list)
    """What of the project it has taken, at most 100 paths."""

    @property
    def is_whole(self) -> bool:
        """Say whether the checkpoint can be restored."""
        return not self.problems


def verify(
    archive: Archive,
    checkpoint: Checkpoint,
    *,
    read_data: bool,
    stop: Stop,
    checks: Checks | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verified:
    """Check that all parts are there and fit; with *read_data* also every stored byte.

    What *checks* says of packs is taken over, and what is read here is added to it.
    """
    seen = Verified(packs=len(checkpoint.packs))
    checks = checks or Checks()
    archive.indexes = checks.indexes
    lost: dict[str, str] = {}
    reading = Reading(archive, checkpoint, stop.check, lost=lost)
    seen.problems += list(lost.values())
    bad: set[bytes] = set()
    if read_data:
        total, done = sum(checkpoint.packs.values()), 0
        for pack_id, pack in reading.packs.items():
            stop.check()
            if pack_id not in checks.bad:
                checks.bad[pack_id] = _damaged_in(archive, reading, pack_id, seen)
            elif checks.bad[pack_id]:
                seen.problems.append(f"the pack {pack_id} is damaged")
            bad |= checks.bad[pack_id]
            done += pack.size_bytes
            if progress is not None:
                progress(done, total)
    _Walk(archive, reading, seen, bad, checks).run(stop)
    if seen.damaged:
        _offer(archive, checkpoint, seen, stop)
    del seen.problems[_MOST:]
    return seen


def whole_before(archive: Archive, checkpoint: Checkpoint, stop: Stop) -> Checkpoint | None:
    """Return the newest earlier checkpoint of which every byte is as it was written, or None."""
    checks = Checks()
    for earlier in _earlier(archive, checkpoint):
        if verify(archive, earlier, read_data=True, stop=stop, checks=checks).is_whole:
            return earlier
    return None


def _earlier(archive: Archive, checkpoint: Checkpoint) -> list[Checkpoint]:
    ids = [one for one, _ in archive.checkpoint_ids() if one < checkpoint.id]
    found = []
    for one in ids[::-1][:_LOOKED_BACK]:
        try:
            found.append(archive.checkpoint(one))
        except (DamagedError, NotFoundError):
            continue  # what cannot be read is not what is looked for
    return found


def _damaged_in(
    archive: Archive, reading: Reading, pack_id: str, seen: Verified
) -> frozenset[bytes]:
    """Return the chunks of a pack that are not what was written; why is added to the problems."""
    checkpoint = reading.checkpoint
    chunks = frozenset(reading.packs[pack_id].chunk_ids())
    try:
        data = archive.store.get(archive.pack_place(checkpoint, pack_id)).data
    except (DamagedError, ObjectNotFoundError) as error:
        seen.problems.append(error.message)
        return chunks
    try:
        packs.parse(data, pack_id, archive.keys, archive.family(checkpoint))
        is_right = True
    except DamagedError as error:
        seen.problems.append(error.message)
        is_right = False
    bad: set[bytes] = set()
    for frame in reading.packs[pack_id].frames:
        stored = data[frame.offset : frame.offset + frame.stored_bytes]
        try:
            reading.open(pack_id, frame, stored)
        except DamagedError as error:
            bad |= {chunk for chunk, _ in frame.chunks}
            if is_right:
                seen.problems.append(f"the pack {pack_id}: {error.message}")
    return frozenset(bad)


@dataclass(slots=True)
class _Open:
    """A directory that is being walked, and what was found of it until now."""

    path: bytes
    node: bytes
    waiting: list[Entry]
    files: int = 0
    packs: int = 0
    is_whole: bool = True

    def take(self, found: Whole) -> None:
        self.files += found.files
        self.packs |= found.packs


class _Walk:
    """Looks at every file and directory of a checkpoint, leaves first."""

    def __init__(
        self, archive: Archive, reading: Reading, seen: Verified, bad: set[bytes], checks: Checks
    ) -> None:
        self._reading = reading
        self._seen = seen
        self._bad = bad
        self._checks = checks
        checkpoint = reading.checkpoint
        self._bits = {one: checks.bit(archive.pack_place(checkpoint, one)) for one in reading.packs}
        self._here = sum(self._bits.values())

    def run(self, stop: Stop) -> None:
        """Note what cannot be read, and count the files."""
        checkpoint = self._reading.checkpoint
        roots = [(name.encode(), self._reading.root(name)) for name in checkpoint.roots]
        for name, root in roots:
            top = _Open(b"", b"", [])
            opened = [top]
            self._begin(opened, name, root)
            while len(opened) > 1:
                stop.check()
                self._step(opened)
            self._seen.files += top.files

    def _step(self, opened: list[_Open]) -> None:
        at = opened[-1]
        if at.waiting:
            entry = at.waiting.pop()
            path = at.path + b"/" + entry.name
            if entry.kind == "directory":
                self._begin(opened, path, entry)
            else:
                self._look(at, path, entry)
            return
        opened.pop()
        found = Whole(at.files, at.packs)
        opened[-1].take(found)
        if at.is_whole:
            self._checks.keep(at.node, found)
        else:
            opened[-1].is_whole = False

    def _begin(self, opened: list[_Open], path: bytes, entry: Entry) -> None:
        """Open a directory, or take over what is known of it."""
        above = opened[-1]
        known = self._checks.known(entry.node, self._here)
        if known is not None:
            above.take(known)
            return
        why = "it and all in it cannot be read"
        try:
            if entry.node not in self._bad:
                inner = _Open(path, entry.node, self._reading.entries(entry))
                inner.packs = self._bits[self._reading.places[entry.node][0]]
                opened.append(inner)
                return
        except DamagedError as error:
            why = error.message
        above.is_whole = False
        _note(self._seen, path, why)

    def _look(self, at: _Open, path: bytes, entry: Entry) -> None:
        at.files += 1
        lacks = 0
        for _, chunk in entry.chunks:
            place = self._reading.places.get(chunk)
            if place is None or chunk in self._bad:
                lacks += 1
            else:
                at.packs |= self._bits[place[0]]
        if lacks:
            at.is_whole = False
            _note(self._seen, path, f"lacks {lacks} of its parts")


def _note(seen: Verified, path: bytes, what: str) -> None:
    if len(seen.damaged) < _MOST:
        seen.damaged.append(Damage(path))
        seen.problems.append(f"{paths.shown(path)}: {what}")


def _offer(archive: Archive, checkpoint: Checkpoint, seen: Verified, stop: Stop) -> None:
    """Find for each damaged path the newest earlier checkpoint in which it can be read."""
    missing = {one.path: number for number, one in enumerate(seen.damaged)}
    for earlier in _earlier(archive, checkpoint):
        if not missing:
            return
        reading = Reading(archive, earlier, stop.check, lost={})
        for path, number in list(missing.items()):
            if _is_readable(reading, path, stop):
                seen.damaged[number] = Damage(path, earlier.id, earlier.at)
                del missing[path]


def _is_readable(reading: Reading, path: bytes, stop: Stop) -> bool:
    try:
        for _, entry in reading.walk(reading.find(path), path):
            for _, chunk in entry.chunks:
                stop.check()
                reading.chunk(chunk)
    except (DamagedError, NotFoundError):
        return False
    return True
