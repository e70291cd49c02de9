"""Which server a project belongs to: a lease in the store, with an epoch that only grows.

The lease alone fences nothing (a stopped process may wake after it). What fences is the
head: taking over writes it anew under the higher epoch, so the former owner's next write
meets another generation and a higher epoch, and is refused.
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from anyon.domain.errors import ConflictError
from anyon.failpoints import reached
from anyon.storage.archives import Archive, OwnershipLostError
from anyon.storage.objects import (
    ABSENT,
    DamagedError,
    ObjectNotFoundError,
    PreconditionFailedError,
)
from anyon.storage.records import Head


class OwnedElsewhereError(ConflictError):
    """Another server holds the project, and its lease has not run out."""

    default_code = "owned_elsewhere"


class TakeOver(Enum):
    """When a claim may take what is another server's."""

    NEVER = "never"
    """Not even after its lease: whoever has local files may not write over a newer state."""
    EXPIRED = "expired"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Claim:
    """A server's right to write a project, until a time."""

    server: str
    epoch: int
    until: datetime
    generation: str


def claim(
    archive: Archive,
    server: str,
    *,
    now: datetime,
    length: timedelta,
    take_over: TakeOver = TakeOver.EXPIRED,
) -> Claim:
    """Take or keep the project for *server*; OwnedElsewhereError if another's is not to be taken.

    A server that has it keeps its epoch. One that takes it over gets a higher one, and the
    head carries it before this returns.
    """
    former = _read(archive)
    head, generation = archive.head()
    if former is not None and former.server != server and not _may_take(former, take_over, now):
        raise OwnedElsewhereError(
            f"{archive.project} belongs to {former.server} until {former.until.isoformat()}"
        )
    if former is not None and former.server == server:
        epoch = former.epoch
    else:
        known = max(head.epoch if head is not None else 0, former.epoch if former else 0)
        epoch = known + 1
    taken = _write(archive, former, Claim(server, epoch, now + length, ""))
    reached("claim.owner_written")
    if head is not None and head.epoch > epoch:
        raise OwnershipLostError(f"{archive.project} is at a higher epoch than its owner")
    if head is None or head.epoch < epoch:
        checkpoint = head.checkpoint if head is not None else None
        at = head.at if head is not None else now
        archive.move_head(Head(checkpoint, epoch, at, server), generation)
        reached("claim.head_moved")
    return taken


def _may_take(former: Claim, take_over: TakeOver, now: datetime) -> bool:
    match take_over:
        case TakeOver.NEVER:
            return False
        case TakeOver.EXPIRED:
            return former.until <= now
        case TakeOver.ALWAYS:
            return True


def release(archive: Archive, held: Claim, *, now: datetime) -> None:
    """Give the project up, so that another may take it at once; the epoch is kept."""
    _write(archive, held, replace(held, until=now))
    reached("claim.released")


def _read(archive: Archive) -> Claim | None:
    try:
        blob = archive.store.get(archive.places.owner)
    except ObjectNotFoundError:
        return None
    try:
        body = json.loads(blob.data)
        until = datetime.fromisoformat(body["until"])
        return Claim(str(body["server"]), int(body["epoch"]), until, blob.generation)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"the owner of {archive.project} cannot be read: {error}") from error


def _write(archive: Archive, former: Claim | None, wanted: Claim) -> Claim:
    body = {"server": wanted.server, "epoch": wanted.epoch, "until": wanted.until.isoformat()}
    generation = former.generation if former is not None else ABSENT
    try:
        data = json.dumps(body).encode()
        new = archive.store.put(archive.places.owner, data, if_generation=generation)
    except PreconditionFailedError:
        raise OwnedElsewhereError(f"another server was quicker to take {archive.project}") from None
    return replace(wanted, generation=new)
