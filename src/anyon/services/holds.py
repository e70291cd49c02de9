"""Holds: what a user asks to keep a project awake by, with a reason and an end."""

from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import events as event_rows
from anyon.db import leases as lease_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.actors import Actor
from anyon.domain.entities import Lease, Project
from anyon.domain.errors import AnyonError, InvalidInputError, NotFoundError
from anyon.domain.ids import LeaseId, ProjectId, new_id
from anyon.services.containers import Containers
from anyon.services.feed import Change, Feed, Kind
from anyon.services.leases import HOLD, Leases, owned_elsewhere, wants_running

log = structlog.get_logger(__name__)

LONGEST = timedelta(days=7)
REASON_LIMIT = 200


class Holds:
    """Gives holds and takes them back. They are rows alone: no heartbeat, and no server needs to live.

    An unknown or foreign project is NotFoundError ``project_unknown``.
    """

    def __init__(
        self, *, db: Database, containers: Containers, leases: Leases, feed: Feed, clock: Clock
    ) -> None:
        self._db = db
        self._containers = containers
        self._leases = leases
        self._feed = feed
        self._clock = clock

    async def take(
        self, actor: Actor, project_id: ProjectId, *, reason: str, length: timedelta
    ) -> Lease:
        """Wake the project and keep it awake for *length*, whatever becomes of this server.

        InvalidInputError: ``reason_missing``, ``too_long``, ``bad_length``. ConflictError:
        ``owned_elsewhere``, ``project_creating``. When it cannot be woken there is no hold.
        """
        why = _checked(reason, length)
        project = await self._found(actor, project_id)
        now = self._clock.now()
        lease = Lease(
            id=LeaseId(new_id()),
            project_id=project_id,
            holder=f"{HOLD}{actor.user_id}",
            reason=why,
            created_at=now,
            expires_at=now + length,
        )
        other = await self._db.write(self._add, lease, now)
        if other is not None:
            raise owned_elsewhere(other)
        try:
            await self._containers.ensure(project)
        except AnyonError:
            await self._db.write(lease_rows.remove, lease.id)
            raise
        self._publish(project_id)
        log.info("project.held", project=project_id, until=str(lease.expires_at))
        return lease

    async def release(self, actor: Actor, project_id: ProjectId, lease_id: LeaseId) -> None:
        """Give a hold back before its end; NotFoundError ``hold_unknown``."""
        await self._found(actor, project_id)
        if not await self._db.write(self._remove, project_id, lease_id, self._clock.now()):
            raise NotFoundError(
                "there is no such hold on the project",
                code="hold_unknown",
                hint="`anyon project why` shows who holds it; only holds can be released.",
            )
        self._publish(project_id)

    def _add(self, connection: Connection, lease: Lease, now: datetime) -> str | None:
        other = self._leases.take(connection, lease.project_id)
        if other is None:
            lease_rows.remove_expired(connection, now)
            lease_rows.add(connection, lease)
            wants_running(connection, lease)
            project_rows.was_active(connection, lease.project_id, now)
            event_rows.add(
                connection, lease.project_id, "hold.taken", now, reason="asked", detail=lease.reason
            )
        return other

    @staticmethod
    def _remove(
        connection: Connection, project_id: ProjectId, lease_id: LeaseId, now: datetime
    ) -> bool:
        found = {lease.id: lease for lease in lease_rows.all_valid(connection, now)}.get(lease_id)
        if found is None or found.project_id != project_id or not is_hold(found):
            return False
        lease_rows.remove(connection, lease_id)
        project_rows.was_active(connection, project_id, now)
        event_rows.add(
            connection, project_id, "hold.released", now, reason="asked", detail=found.reason
        )
        return True

    async def _found(self, actor: Actor, project_id: ProjectId) -> Project:
        project = await self._db.read(project_rows.get, actor.user_id, project_id)
        if project is None:
            raise NotFoundError("there is no such project", code="project_unknown")
        return project

    def _publish(self, project_id: ProjectId) -> None:
        self._feed.publish(Change(kind=Kind.PROJECT, id=project_id, project_id=project_id))


def is_hold(lease: Lease) -> bool:
    """Say whether a lease was asked for by a user, who may release it."""
    return lease.holder.startswith(HOLD)


def _checked(reason: str, length: timedelta) -> str:
    why = " ".join(reason.split())
    if not why:
        raise InvalidInputError(
            "a hold needs a reason",
            code="reason_missing",
            hint="It is what others see who wonder why the project is awake.",
        )
    if len(why) > REASON_LIMIT:
        raise InvalidInputError(
            f"a hold's reason has at most {REASON_LIMIT} characters", code="too_long"
        )
    if not timedelta(0) < length <= LONGEST:
        raise InvalidInputError(
            "a hold lasts at most 7 days", code="bad_length", hint="Take another when it ends."
        )
    return why
