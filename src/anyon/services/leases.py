"""Leases: who has a project awake and why; and the claim of this server on the projects it acts on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import events as event_rows
from anyon.db import leases as lease_rows
from anyon.db import looks as look_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.entities import Lease
from anyon.domain.errors import AnyonError, ConflictError
from anyon.domain.ids import LeaseId, ProjectId, new_id
from anyon.domain.states import Goal
from anyon.services.supervisors import Supervisor

log = structlog.get_logger(__name__)
TTL = timedelta(seconds=60)
HOLD = "hold of "
"""What the holder of a lease begins with that a user asked for."""
SPARE = "spare"
"""The holder while a worktree is made ahead: the server's own chore, over in a moment."""
LOOK = "look"
"""The reason of who only looks at a repository."""
_CHORE_SECONDS, _CHORE_LOOK_SECONDS = 10.0, 0.05


class Leases:
    """Gives leases and renews them, with this server's claim, for as long as they are held.

    ``server_id`` stays the same over restarts of one server, so that it takes up its own projects
    at once; another server may take them only when the claim has expired.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        supervisor: Supervisor,
        *,
        server_id: str,
        ttl: timedelta = TTL,
    ) -> None:
        self._db = db
        self._clock = clock
        self._supervisor = supervisor
        self._server_id = server_id
        self._ttl = ttl
        self._held: dict[LeaseId, Lease] = {}
        self._is_beating = False

    @asynccontextmanager
    async def hold(
        self,
        project_id: ProjectId,
        *,
        holder: str,
        reason: str,
        also: Callable[[Connection], object] | None = None,
        is_new: bool = True,
    ) -> AsyncIterator[Lease]:
        """Hold a lease inside the block; ConflictError (``owned_elsewhere``) if another server has the project.

        *also* is recorded with it, in one transaction; what it raises is raised, and no lease is taken.
        New work makes the goal of a project that was stopped RUNNING again, in that transaction too;
        what is only taken up again is not *is_new*.
        """
        lease = self._new(project_id, holder, reason)
        also = _all_of(wants_running if is_new else None, lease, also)
        other = await self._db.write(_take, lease, self._server_id, lease.created_at, also)
        if other is not None:
            raise owned_elsewhere(other)
        self._held[lease.id] = lease
        self._beat()
        try:
            yield lease
        finally:
            self._held.pop(lease.id, None)
            await self._give_back(lease)

    @contextmanager
    def guard(self, project_id: ProjectId, *, holder: str, reason: str) -> Iterator[Lease]:
        """Keep this server itself from stepping a project down inside the block.

        Nothing is recorded and it is no activity: it is for short work that may be lost.
        """
        lease = self._new(project_id, holder, reason)
        self._held[lease.id] = lease
        try:
            yield lease
        finally:
            del self._held[lease.id]

    def _new(self, project_id: ProjectId, holder: str, reason: str) -> Lease:
        now = self._clock.now()
        return Lease(
            id=LeaseId(new_id()),
            project_id=project_id,
            holder=holder,
            reason=reason,
            created_at=now,
            expires_at=now + self._ttl,
        )

    async def drop_former(self) -> None:
        """Give back what an earlier life of this server held, but not what users asked for.

        Call it before anything is held: a dead server's work must not keep a project awake.
        """
        await self._db.write(lease_rows.remove_former, self._server_id, but=HOLD)

    async def claim(self, project_id: ProjectId) -> None:
        """Claim a project without holding it awake; ConflictError (``owned_elsewhere``)."""
        other = await self._db.write(self.take, project_id)
        if other is not None:
            raise owned_elsewhere(other)

    def take(self, connection: Connection, project_id: ProjectId) -> str | None:
        """Claim a project inside a transaction: None, or the id of the server that has it."""
        now = self._clock.now()
        return project_rows.take(connection, project_id, self._server_id, now, now + self._ttl)

    async def of(self, project_id: ProjectId) -> Sequence[Lease]:
        """Return who holds the project awake now, oldest first."""
        return [lease for lease in await self.all_held() if lease.project_id == project_id]

    async def is_worked_in(self, project_id: ProjectId) -> bool:
        """Say whether anybody holds the project who may change something in it."""
        return any(map(_is_work, await self.of(project_id)))

    def work_here(self, project_id: ProjectId) -> Sequence[Lease]:
        """Return what this server itself holds for work in the project, whatever the wall clock says of it."""
        held = tuple(self._held.values())
        return [lease for lease in held if lease.project_id == project_id and _is_work(lease)]

    async def of_work(self, project_id: ProjectId) -> Sequence[Lease]:
        """Return who holds the project, as ``of``, once the server's own chore there is over.

        Nobody who asks for something is to be told that the project is busy because of that. A
        chore that takes longer than 10 s counts like work.
        """
        for _ in range(round(_CHORE_SECONDS / _CHORE_LOOK_SECONDS)):
            held = await self.of(project_id)
            if any(lease.holder != SPARE for lease in held) or not held:
                return held
            await asyncio.sleep(_CHORE_LOOK_SECONDS)
        return await self.of(project_id)

    async def all_held(self) -> Sequence[Lease]:
        """Return every project's holders, oldest first.

        What this server itself holds counts whatever the wall clock says: a clock that jumps
        past a lease's end must not put a project to sleep under its work.
        """
        recorded = await self._db.read(lease_rows.all_valid, self._clock.now())
        by_id = {lease.id: lease for lease in recorded} | self._held
        return sorted(by_id.values(), key=lambda lease: (lease.created_at, lease.id))

    async def _give_back(self, lease: Lease) -> None:
        try:
            await self._db.write(_give_back, lease, self._clock.now())
        except AnyonError as error:  # what it was held for is done: it expires by itself
            log.warning("lease.return_failed", project=lease.project_id, error=str(error))

    def _beat(self) -> None:
        if not self._is_beating:
            self._is_beating = True
            self._supervisor.spawn(self._beats(), name="lease heartbeat")

    async def _beats(self) -> None:
        try:
            while self._held:
                await self._clock.sleep(self._ttl / 3)
                await self.renew()
        finally:
            self._is_beating = False

    async def renew(self) -> None:
        """Let everything that is held last on; a failure is told to the log and tried again at the next beat."""
        held = tuple(self._held.values())
        if not held:
            return
        try:
            until = self._clock.now() + self._ttl
            await self._db.write(_renew, held, self._server_id, until)
        except AnyonError as error:
            log.warning("lease.renewal_failed", count=len(held), error=str(error))


def _is_work(lease: Lease) -> bool:
    return lease.reason != LOOK and lease.holder != SPARE


def owned_elsewhere(other: str) -> ConflictError:
    """Return the error of a project that another server acts on."""
    return ConflictError(
        f"another server ({other or 'unknown'}) acts on this project",
        code="owned_elsewhere",
        hint="Ask that server, or try again in a minute if it is gone.",
    )


def _take(
    connection: Connection,
    lease: Lease,
    server: str,
    now: datetime,
    also: Callable[[Connection], object] | None,
) -> str | None:
    other = project_rows.take(connection, lease.project_id, server, now, lease.expires_at)
    if other is None:
        lease_rows.add(connection, lease)
        project_rows.was_active(connection, lease.project_id, now)
        look_rows.forget(connection, lease.project_id)  # from here on it may change
        if also is not None:
            also(connection)
    return other


def _all_of(
    goal: Callable[[Connection, Lease], object] | None,
    lease: Lease,
    also: Callable[[Connection], object] | None,
) -> Callable[[Connection], object] | None:
    if goal is None:
        return also

    def both(connection: Connection) -> None:
        goal(connection, lease)
        if also is not None:
            also(connection)

    return both


def wants_running(connection: Connection, lease: Lease) -> None:
    """Record that new work wants a project awake that somebody had stopped or archived, and that it did."""
    project, now = lease.project_id, lease.created_at
    if project_rows.want(
        connection, project, Goal.RUNNING, instead_of={Goal.STOPPED, Goal.ARCHIVED}
    ):
        event_rows.add(connection, project, "goal.running", now, reason="work", detail=lease.reason)


def _give_back(connection: Connection, lease: Lease, now: datetime) -> None:
    lease_rows.remove(connection, lease.id)
    project_rows.was_active(connection, lease.project_id, now)


def _renew(connection: Connection, held: Sequence[Lease], server: str, until: datetime) -> None:
    lease_rows.renew(connection, [lease.id for lease in held], until)
    projects = sorted({lease.project_id for lease in held})
    project_rows.keep(connection, server, projects, until)
