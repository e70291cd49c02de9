"""Looking whether checkpoints are whole: their structure, or every byte."""

from dataclasses import dataclass, field

from anyon.domain.errors import NotFoundError
from anyon.storage import packs
from anyon.storage.archives import Archive
from anyon.storage.objects import DamagedError, ObjectNotFoundError
from anyon.storage.readings import Reading
from anyon.storage.records import Checkpoint
from anyon.storage.uploads import Stop

_MOST = 100


@dataclass(slots=True)
class Verified:
    """What a verification saw."""

    files: int = 0
    packs: int = 0
    problems: list[str] = field(default_factory=list)
    """One line for each damage, at most 100; empty if the checkpoint is whole."""

    @property
    def is_whole(self) -> bool:
        """Say whether the checkpoint can be restored."""
        return not self.problems


def verify(archive: Archive, checkpoint: Checkpoint, *, read_data: bool, stop: Stop) -> Verified:
    """Check that all parts are there and fit; with *read_data* also every stored byte."""
    seen = Verified(packs=len(checkpoint.packs))
    try:
        reading = Reading(archive, checkpoint, stop.check)
        _walk(reading, seen, stop)
    except (DamagedError, NotFoundError) as error:
        seen.problems.append(error.message)
        return seen
    if read_data:
        for pack_id in checkpoint.packs:
            stop.check()
            try:
                _read_pack(archive, reading, pack_id)
            except (DamagedError, ObjectNotFoundError) as error:
                seen.problems.append(error.message)
    del seen.problems[_MOST:]
    return seen


def _walk(reading: Reading, seen: Verified, stop: Stop) -> None:
    for name in reading.checkpoint.roots:
        for path, entry in reading.walk(reading.root(name), name.encode()):
            stop.check()
            if entry.kind != "directory":
                seen.files += 1
            missing = [c for _, c in entry.chunks if c not in reading.places]
            if missing and len(seen.problems) < _MOST:
                shown = path.decode("utf-8", "replace")
                seen.problems.append(f"{shown} lacks {len(missing)} of its parts")


def _read_pack(archive: Archive, reading: Reading, pack_id: str) -> None:
    checkpoint = reading.checkpoint
    data = archive.store.get(archive.pack_place(checkpoint, pack_id)).data
    pack = packs.parse(data, pack_id, archive.keys, archive.family(checkpoint))
    for frame in pack.frames:
        reading.open(pack_id, frame, data[frame.offset : frame.offset + frame.stored_bytes])
