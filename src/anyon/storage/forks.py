"""Forks: a new project whose first checkpoint needs the packs of another, and copies none.

A fork is made in a constant number of requests. Its checkpoints name the packs that lie with
the projects it came from (the *lenders*), and its chunks go on being named by their key. Each
lender keeps one object, its *loans*: which packs which fork needs. It is changed by
compare-and-set only and read whole, so no list of the store has to be believed.

Why neither loses what the other needs: whoever makes a fork first records the loans, then looks
whether the checkpoint is still there. Whoever removes packs first deletes checkpoints (for a
deletion the head before them), then reads the loans. So either the fork is refused, or the
remover sees its loans. A fork of a fork has loans of its own with every lender.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from anyon.domain.errors import ConflictError, NotFoundError
from anyon.failpoints import reached
from anyon.storage import records
from anyon.storage.archives import Archive
from anyon.storage.objects import (
    ABSENT,
    DamagedError,
    ObjectNotFoundError,
    PreconditionFailedError,
)
from anyon.storage.records import Checkpoint, Head, new_checkpoint_id
from anyon.storage.uploads import Stop, Uploads

_TRIES = 30


@dataclass(frozen=True, slots=True)
class Loan:
    """What one fork needs of a lender, and since when."""

    packs: tuple[str, ...]
    at: str


@dataclass(frozen=True, slots=True)
class Loans:
    """The object of a lender: what each fork needs, by the fork's place."""

    forks: dict[str, Loan] = field(default_factory=dict)

    @property
    def packs(self) -> frozenset[str]:
        """Every pack that any fork needs."""
        return frozenset(pack for loan in self.forks.values() for pack in loan.packs)


@dataclass(frozen=True, slots=True)
class Borrows:
    """The object of a fork: with which projects it has loans; written before the first of them."""

    lenders: tuple[str, ...] = ()


def fork(
    source: Archive,
    checkpoint_id: str,
    into: Archive,
    *,
    rows: bytes,
    now: datetime,
    stop: Stop,
) -> Checkpoint:
    """Make *into* a project that begins with a checkpoint of *source*; return its first one.

    *rows* are the new project's own records. NotFoundError (``checkpoint_not_found``) if the
    checkpoint is not there or not confirmed. After a failure ``repay`` *into*, or delete it.
    """
    origin = _confirmed(source, checkpoint_id)
    places = {pack: origin.borrowed.get(pack, source.project) for pack in origin.packs}
    lenders = tuple(sorted(set(places.values())))
    data = records.encode(into.keys.current(into.project), "borrows", Borrows(lenders))
    into.store.put(into.places.borrows, data)
    reached("fork.borrows_written")
    for lender in lenders:
        stop.check()
        packs = tuple(pack for pack, place in places.items() if place == lender)
        _lend(beside(into, lender), into.project, Loan(packs, now.isoformat()))
        reached("fork.lent")
    _confirmed(source, checkpoint_id)
    first = _first(source, origin, into, rows, now)
    first = replace(first, borrowed={**places})
    into.add_checkpoint(first)
    reached("fork.checkpoint_written")
    into.move_head(Head(first.id, 0, first.at), ABSENT)
    reached("fork.head_made")
    for lender in lenders:
        # A collector takes the loan of a fork that has had no head for a day: see ``lent``.
        if into.project not in loans_of(beside(into, lender)).forks:
            into.store.delete(into.places.head)
            raise ConflictError("the fork took too long", code="fork_expired", hint="Try again.")
    return first


def _first(
    source: Archive, origin: Checkpoint, into: Archive, rows: bytes, now: datetime
) -> Checkpoint:
    key = source.current_key(origin)
    uploads = Uploads(into.store, into.places, key, known=lambda _: None, first_number=0, workers=1)
    try:
        chunk = uploads.add(rows, is_node=True)
        uploads.flush()
    finally:
        uploads.close()
    own = {pack.id: pack.size_bytes for pack in uploads.packs.values()}
    return replace(
        origin,
        id=new_checkpoint_id(now),
        project=into.project,
        parent=None,
        at=now,
        reason="fork",
        epoch=0,
        new_bytes=uploads.new_bytes,
        packs={**origin.packs, **own},
        records=chunk.hex(),
        family=source.family(origin),
    )


def beside(archive: Archive, project: str) -> Archive:
    """Return the archive of another project in the same store."""
    return Archive(archive.store, archive.keys, project)


def loans_of(lender: Archive) -> Loans:
    """Return what forks need of *lender*; DamagedError if that cannot be read."""
    return _read(lender)[0]


def lent(lender: Archive, *, now: datetime, grace: timedelta) -> frozenset[str]:
    """Return the packs of *lender* that forks need; loans of forks that never came to be end.

    Call it after the checkpoints that are to go are deleted.
    """
    loans = loans_of(lender)
    for place, loan in loans.forks.items():
        is_old = now - datetime.fromisoformat(loan.at) > grace
        if not is_old or beside(lender, place).is_living():
            continue
        _keep_only(lender, place, frozenset())
        if beside(lender, place).is_living():
            # It got its head at this very moment, and saw its loan: nothing has gone yet.
            _lend(lender, place, loan)
    return loans_of(lender).packs


def lenders_of(fork_archive: Archive) -> tuple[str, ...]:
    """Return with which projects a project has loans; none for what is no fork."""
    try:
        data = fork_archive.store.get(fork_archive.places.borrows).data
    except ObjectNotFoundError:
        return ()
    body = records.decoded(data, fork_archive.keys, fork_archive.project, "borrows")
    try:
        return tuple(str(place) for place in body["lenders"])
    except (KeyError, TypeError) as error:
        raise DamagedError(f"the loans of {fork_archive.project} cannot be read") from error


def repay(fork_archive: Archive, needed: Mapping[str, str], stop: Stop) -> int:
    """Give back what a fork does not need any more; return how many packs were removed by it.

    *needed* are the packs that its kept checkpoints borrow, and of which project. Call it after
    the other checkpoints are deleted. What a deleted lender kept for this fork only is removed.
    """
    removed = 0
    lenders = lenders_of(fork_archive)
    for place in lenders:
        stop.check()
        lender = beside(fork_archive, place)
        packs = frozenset(pack for pack, at in needed.items() if at == place)
        _keep_only(lender, fork_archive.project, packs)
        reached("fork.repaid")
        if not lender.is_living():
            removed += sweep(lender, stop)
    left = tuple(place for place in lenders if place in set(needed.values()))
    if lenders and left != lenders:
        key = fork_archive.keys.current(fork_archive.project)
        data = records.encode(key, "borrows", Borrows(left))
        fork_archive.store.put(fork_archive.places.borrows, data)
    return removed


def sweep(deleted: Archive, stop: Stop) -> int:
    """Remove the packs of a deleted project that no fork needs, and with the last all of it."""
    loans = loans_of(deleted)
    kept = loans.packs
    removed = 0
    for info in list(deleted.store.list(f"{deleted.project}/packs/")):
        stop.check()
        if info.key.rpartition("/")[2] not in kept:
            deleted.store.delete(info.key)
            removed += 1
            reached("fork.lender_swept")
    if not loans.forks:
        deleted.store.delete(deleted.places.loans)
    return removed


def _confirmed(source: Archive, checkpoint_id: str) -> Checkpoint:
    head, _ = source.head()
    if head is None or head.checkpoint is None or checkpoint_id > head.checkpoint:
        raise NotFoundError(f"there is no checkpoint {checkpoint_id}", code="checkpoint_not_found")
    return source.checkpoint(checkpoint_id)


def _lend(lender: Archive, place: str, loan: Loan) -> None:
    def change(forks: dict[str, Loan]) -> dict[str, Loan]:
        former = forks.get(place)
        packs = dict.fromkeys((*(former.packs if former else ()), *loan.packs))
        return {**forks, place: Loan(tuple(packs), loan.at)}

    _change(lender, change)


def _keep_only(lender: Archive, place: str, packs: frozenset[str]) -> None:
    def change(forks: dict[str, Loan]) -> dict[str, Loan]:
        former = forks.get(place)
        if former is None:
            return forks
        left = tuple(pack for pack in former.packs if pack in packs)
        others = {k: v for k, v in forks.items() if k != place}
        return {**others, place: replace(former, packs=left)} if left else others

    _change(lender, change)


def _change(lender: Archive, change: Callable[[dict[str, Loan]], dict[str, Loan]]) -> None:
    for tries in range(_TRIES):
        loans, generation = _read(lender)
        wanted = change(loans.forks)
        if wanted == loans.forks:
            return
        data = records.encode(lender.keys.current(lender.project), "loans", Loans(wanted))
        try:
            lender.store.put(lender.places.loans, data, if_generation=generation)
        except PreconditionFailedError:
            # Not a matter of secrecy: several who collide must not do so again at once.
            time.sleep(random.uniform(0, 0.02 * (tries + 1)))  # noqa: S311 - see above
        else:
            return
    raise ConflictError(
        f"the loans of {lender.project} are changed by too many at once",
        code="loans_busy",
        hint="Try again in a moment.",
    )


def _read(lender: Archive) -> tuple[Loans, str]:
    try:
        blob = lender.store.get(lender.places.loans)
    except ObjectNotFoundError:
        return Loans(), ABSENT
    body = records.decoded(blob.data, lender.keys, lender.project, "loans")
    try:
        forks = {
            str(place): Loan(tuple(map(str, loan["packs"])), str(loan["at"]))
            for place, loan in body["forks"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"the loans of {lender.project} cannot be read") from error
    return Loans(forks), blob.generation
