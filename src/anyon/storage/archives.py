"""One project's objects in a store: its head, checkpoints and packs, read and written."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from anyon.domain.errors import ConflictError, NotFoundError
from anyon.storage import packs, records
from anyon.storage.keys import Keys, ProjectKey
from anyon.storage.objects import (
    ABSENT,
    DamagedError,
    ObjectNotFoundError,
    ObjectStore,
    PreconditionFailedError,
)
from anyon.storage.records import Checkpoint, Head, Places

_READERS = 8


class OwnershipLostError(ConflictError):
    """Another server owns the project now; this one must stop writing it."""

    default_code = "ownership_lost"


class Archive:
    """What is kept of one project; all calls block."""

    def __init__(self, store: ObjectStore, keys: Keys, project: str) -> None:
        self.store = store
        self.keys = keys
        self.project = project
        self.places = Places(project)
        self.indexes: dict[str, packs.Pack] | None = None
        """Where indexes of packs are kept for whoever reads many checkpoints; None keeps none."""

    def head(self) -> tuple[Head | None, str]:
        """Return the head and its generation; None and ABSENT if there never was one."""
        try:
            blob = self.store.get(self.places.head)
        except ObjectNotFoundError:
            return None, ABSENT
        return records.decode_head(blob.data, self.keys, self.project), blob.generation

    def move_head(self, head: Head, generation: str) -> str:
        """Replace the head that has *generation*; OwnershipLostError if it was moved meanwhile."""
        data = records.encode(self.keys.current(self.project), "head", head)
        try:
            return self.store.put(self.places.head, data, if_generation=generation)
        except PreconditionFailedError:
            raise OwnershipLostError(
                f"another writer moved the head of {self.project}",
                hint="Look which server owns the project; this one's files were left alone.",
            ) from None

    def checkpoint(self, checkpoint_id: str) -> Checkpoint:
        """Return a checkpoint, or raise NotFoundError."""
        try:
            data = self.store.get(self.places.checkpoint(checkpoint_id)).data
        except ObjectNotFoundError:
            raise NotFoundError(
                f"there is no checkpoint {checkpoint_id}", code="checkpoint_not_found"
            ) from None
        found = records.decode_checkpoint(data, self.keys, self.project)
        if found.id != checkpoint_id or found.project != self.project:
            raise NotFoundError(f"the checkpoint {checkpoint_id} is another's")
        return found

    def checkpoints(
        self, checkpoint_ids: Iterable[str], check: Callable[[], None] = lambda: None
    ) -> list[Checkpoint]:
        """Return checkpoints in the order of their ids as given, several being read at a time."""

        def one(checkpoint_id: str) -> Checkpoint:
            check()
            return self.checkpoint(checkpoint_id)

        with ThreadPoolExecutor(_READERS, thread_name_prefix="anyon-record") as pool:
            return list(pool.map(one, checkpoint_ids))

    def is_living(self) -> bool:
        """Say whether there is a state to restore: a deleted project's head goes first."""
        head, _ = self.head()
        return head is not None and head.checkpoint is not None

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a new checkpoint; what it needs must be in the store already."""
        data = records.encode(self.keys.current(self.project), "checkpoint", checkpoint)
        self.store.put(self.places.checkpoint(checkpoint.id), data, if_generation=ABSENT)

    def checkpoint_ids(self) -> list[tuple[str, datetime]]:
        """Return the ids of all checkpoint objects and when they were written, oldest first."""
        prefix = self.places.checkpoints
        return [(i.key.removeprefix(prefix), i.updated_at) for i in self.store.list(prefix)]

    def family(self, checkpoint: Checkpoint | None) -> str:
        """Return the project whose key names and seals the chunks of *checkpoint*."""
        return (checkpoint.family if checkpoint is not None else "") or self.project

    def current_key(self, checkpoint: Checkpoint | None) -> ProjectKey:
        """Return the key for new chunks of a save that builds on *checkpoint*."""
        return self.keys.current(self.family(checkpoint))

    def pack_place(self, checkpoint: Checkpoint, pack_id: str) -> str:
        """Return the object of one of *checkpoint*'s packs, which may lie with another project."""
        return Places(checkpoint.borrowed.get(pack_id, self.project)).pack(pack_id)

    def pack_indexes(
        self,
        checkpoint: Checkpoint,
        check: Callable[[], None] = lambda: None,
        lost: dict[str, str] | None = None,
    ) -> Iterator[packs.Pack]:
        """Yield the indexes of *checkpoint*'s packs, several being read at a time, in order.

        With *lost*, packs that are not there or damaged are noted in it, with why, and left out.
        """

        def one(pack_id: str) -> packs.Pack | None:
            check()
            if self.indexes is not None and pack_id in self.indexes:
                return self.indexes[pack_id]
            place, family = self.pack_place(checkpoint, pack_id), self.family(checkpoint)
            try:
                found = packs.read_index(self.store, place, pack_id, self.keys, family)
            except (DamagedError, ObjectNotFoundError) as error:
                if lost is None:
                    raise
                lost[pack_id] = error.message
                return None
            if self.indexes is not None:
                self.indexes[pack_id] = found
            return found

        with ThreadPoolExecutor(_READERS, thread_name_prefix="anyon-index") as pool:
            yield from (pack for pack in pool.map(one, checkpoint.packs) if pack is not None)
