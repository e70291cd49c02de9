"""Garbage collection: old checkpoints by the retention, then packs that nothing needs.

In the order opposite to writing, so that a crash leaves at worst more garbage. One
collector at a time, under a lease. A save that runs meanwhile is safe without any lock: it
builds only on packs of the head it read, which is kept, and on packs that are younger than
*grace*: of what is older the names are never taken again (``uploads.mark_of``), so a collector
that was stopped in the middle, and goes on after another server took over, harms nothing either.
What forks need is kept too, and a fork gives back what it has let go: see ``forks``.
"""

import json
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from anyon.domain.errors import ConflictError
from anyon.failpoints import reached
from anyon.storage import forks
from anyon.storage.archives import Archive, OwnershipLostError
from anyon.storage.objects import ABSENT, DamagedError, ObjectNotFoundError, PreconditionFailedError
from anyon.storage.records import Checkpoint
from anyon.storage.retention import Retention, kept
from anyon.storage.uploads import Stop

LEASE = timedelta(hours=1)
LOOK = timedelta(seconds=10)
"""A collector that has not asked for so long whether it may, asks before it removes anything."""
_Found = dict[str, tuple[Checkpoint, datetime]]


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection removed."""

    checkpoints: int
    packs: int
    bytes: int
    """The size of the packs that were the project's own."""


class CollectionBusyError(ConflictError):
    """Another collector holds the lease of this project."""

    default_code = "collection_busy"


def collect(
    archive: Archive,
    policy: Retention,
    *,
    now: datetime,
    grace: timedelta,
    epoch: int,
    stop: Stop,
    monotonic: Callable[[], float] = time.monotonic,
) -> Collected:
    """Remove what the policy lets go; refuses to delete anything if a record cannot be read."""
    lease = _Lease(archive, now, epoch, stop, monotonic)
    reached("collection.leased")
    try:
        head, found = _read_all(archive, epoch, stop)
        wanted = _wanted(head, found, policy, now=now, grace=grace)
        live = {pack for checkpoint in wanted for pack in found[checkpoint][0].packs}
        dropped = found.keys() - wanted
        for checkpoint in dropped:
            lease.check()
            archive.store.delete(archive.places.checkpoint(checkpoint))
            reached("collection.checkpoint_deleted")
        # Only now: who begins a fork looks for its checkpoint after it has noted its loans.
        live |= forks.lent(archive, now=now, grace=grace)
        needed: dict[str, str] = {}
        for checkpoint in wanted:
            needed |= found[checkpoint][0].borrowed
        given_back = forks.repay(archive, needed, stop)
        collected = _swept(archive, live, now - grace, len(dropped), lease)
        reached("collection.swept")
        return replace(collected, packs=collected.packs + given_back)
    finally:
        lease.release()


def forget(archive: Archive, stop: Stop) -> int:
    """Remove everything of the project but what forks need; return how many objects. Repeatable.

    What it borrowed is given back; what is left for forks goes with the last of them.
    """
    # The head goes first: what is half deleted must not look restorable.
    archive.store.delete(archive.places.head)
    reached("forget.head_deleted")
    infos = list(archive.store.list(f"{archive.project}/"))
    lasting = {archive.places.borrows, archive.places.loans}
    # Then the checkpoints, so that no fork begins from one any more; only now the loans are true.
    infos.sort(key=lambda info: not info.key.startswith(archive.places.checkpoints))
    lent: frozenset[str] | None = None
    removed = 0
    for info in infos:
        stop.check()
        if info.key.startswith(archive.places.packs):
            lent = forks.loans_of(archive).packs if lent is None else lent
            if info.key.rpartition("/")[2] in lent:
                continue
        if info.key not in lasting:
            archive.store.delete(info.key)
            removed += 1
            reached("forget.object_deleted")
    forks.repay(archive, {}, stop)
    archive.store.delete(archive.places.borrows)
    if not forks.loans_of(archive).forks:
        archive.store.delete(archive.places.loans)
    return removed


def _read_all(archive: Archive, epoch: int, stop: Stop) -> tuple[str | None, _Found]:
    """Return the head's checkpoint and all checkpoints; one that cannot be read ends it all."""
    former, _ = archive.head()
    written = dict(archive.checkpoint_ids())
    found = {c.id: (c, written[c.id]) for c in archive.checkpoints(written, stop.check)}
    if former is not None and former.checkpoint not in {None, *found}:
        raise DamagedError(
            f"the list of {archive.project} lacks its head: the store answers wrongly, or the "
            "checkpoint is gone; nothing was deleted"
        )
    # Read after the list, so that what it names is at least as new as all that was listed.
    head, _ = archive.head()
    if head is None:
        if found:
            raise DamagedError(f"{archive.project} has checkpoints and no head; all is left")
        return None, found
    if head.epoch > epoch:
        raise OwnershipLostError(f"{archive.project} belongs to another server")
    if head.checkpoint is not None and head.checkpoint not in found:
        checkpoint = archive.checkpoint(head.checkpoint)
        found[checkpoint.id] = (checkpoint, checkpoint.at)
    return head.checkpoint, found


def _wanted(
    head: str | None,
    found: _Found,
    policy: Retention,
    *,
    now: datetime,
    grace: timedelta,
) -> set[str]:
    times = [(checkpoint, record.at) for checkpoint, (record, _) in found.items()]
    wanted = kept(times, policy, now=now)
    wanted |= {checkpoint for checkpoint, (_, at) in found.items() if now - at <= grace}
    return wanted if head is None else wanted | {head}


def _swept(
    archive: Archive, live: set[str], before: datetime, dropped: int, lease: "_Lease"
) -> Collected:
    packs = size = 0
    for info in list(archive.store.list(archive.places.packs)):
        if info.key.rpartition("/")[2] in live or info.updated_at > before:
            continue
        lease.check()
        archive.store.delete(info.key, if_generation=info.generation)
        reached("collection.pack_deleted")
        packs += 1
        size += info.size_bytes
    return Collected(dropped, packs, size)


def _lease_end(archive: Archive, data: bytes) -> datetime:
    try:
        return datetime.fromisoformat(json.loads(data)["until"])
    except (ValueError, KeyError, TypeError):
        # Spoilt, here or on its way: it holds for as long as one that is written then would.
        return archive.store.head(archive.places.collection).updated_at + LEASE


class _Lease:
    """The right to collect a project; asked before each removal, and renewed when it is half over."""

    def __init__(
        self,
        archive: Archive,
        now: datetime,
        epoch: int,
        stop: Stop,
        monotonic: Callable[[], float],
    ) -> None:
        self._archive = archive
        self._epoch = epoch
        self._stop = stop
        self._monotonic = monotonic
        self._now = now
        self._began = self._looked = self._renewed = monotonic()
        self._generation = _acquire(archive, now)

    def check(self) -> None:
        """Return if nothing says that another has the project, or its collection, by now.

        Asked of the store when some time has passed since it last was: also after a stop of this
        process. OwnershipLostError, CollectionBusyError; StoppedError if the work was called off.
        """
        self._stop.check()
        at = self._monotonic()
        if at - self._looked < LOOK.total_seconds():
            return
        self._looked = at
        head, _ = self._archive.head()
        if head is not None and head.epoch > self._epoch:
            raise OwnershipLostError(f"another server has taken {self._archive.project} over")
        if at - self._renewed >= LEASE.total_seconds() / 2:
            now = self._now + timedelta(seconds=at - self._began)
            self._generation = _write(self._archive, now, self._generation)
            self._renewed = at

    def release(self) -> None:
        """Let the next collector begin; one that has begun is left alone."""
        with suppress(PreconditionFailedError):
            place = self._archive.places.collection
            self._archive.store.delete(place, if_generation=self._generation)


def _acquire(archive: Archive, now: datetime) -> str:
    key = archive.places.collection
    generation = ABSENT
    try:
        blob = archive.store.get(key)
        until = _lease_end(archive, blob.data)
        if until > now:
            raise CollectionBusyError(f"{archive.project} is being collected until {until}")
        generation = blob.generation
    except ObjectNotFoundError:
        pass
    return _write(archive, now, generation)


def _write(archive: Archive, now: datetime, generation: str) -> str:
    key = archive.places.collection
    record = {"until": (now + LEASE).isoformat(), "holder": secrets.token_hex(8)}
    try:
        return archive.store.put(key, json.dumps(record).encode(), if_generation=generation)
    except PreconditionFailedError:
        raise CollectionBusyError(f"{archive.project} is being collected") from None
