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


@dataclass(slots=True)
class Checks:
    """What was learnt of packs, for the verification of several checkpoints of one project."""

    bad: dict[str, frozenset[bytes]] = field(default_factory=dict)
    """Of packs of which every byte was read: the chunks that are damaged."""
    indexes: dict[str, packs.Pack] = field(default_factory=dict)


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
    _walk(reading, seen, bad, stop)
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


def _walk(reading: Reading, seen: Verified, bad: set[bytes], stop: Stop) -> None:
    waiting: list[tuple[bytes, Entry]] = [
        (name.encode(), reading.root(name)) for name in reading.checkpoint.roots
    ]
    while waiting:
        stop.check()
        path, entry = waiting.pop()
        if entry.kind != "directory":
            seen.files += 1
            lacks = [c for _, c in entry.chunks if c not in reading.places or c in bad]
            if lacks:
                _note(seen, path, f"lacks {len(lacks)} of its parts")
            continue
        if entry.node in bad:
            _note(seen, path, "it and all in it cannot be read")
            continue
        try:
            children = reading.entries(entry)
        except DamagedError as error:
            _note(seen, path, error.message)
            continue
        waiting += [(path + b"/" + child.name, child) for child in children]


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
