"""What users want of a project's container: stopped or archived until there is work, or awake now."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import events as event_rows
from anyon.db import leases as lease_rows
from anyon.db import processes as process_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.actors import Actor
from anyon.domain.entities import Lease, Project
from anyon.domain.errors import AnyonError, ConflictError, NotFoundError
from anyon.domain.ids import ProjectId
from anyon.domain.states import Goal
from anyon.services.containers import Containers
from anyon.services.deadlines import having, in_hand
from anyon.services.feed import Change, Feed, Kind
from anyon.services.leases import HOLD, Leases, owned_elsewhere
from anyon.services.phases import check_acting
from anyon.services.runs import Runs
from anyon.services.steps import Steps
from anyon.services.supervisors import Supervisor

log = structlog.get_logger(__name__)

PATIENCE = timedelta(seconds=30)
"""How long a stop waits for who has the project in hand."""
_LOOK_SECONDS, _LOOKS = 0.05, 200
_MOST_NAMED = 3
_VERBS = {Goal.STOPPED: "stop", Goal.ARCHIVED: "archive"}
_LESS_ASLEEP = {Goal.STOPPED: {Goal.RUNNING}, Goal.ARCHIVED: {Goal.RUNNING, Goal.STOPPED}}
"""Instead of which goals each may be wanted: a stop leaves what was archived so."""


class Goals:
    """Stops and archives projects by name, and wakes them. An unknown or foreign one is ``project_unknown``.

    Each is a goal: it stands until there is new work, which wakes the project and makes the
    goal RUNNING again. What was there before the stop (a hold, an open page) wakes nothing.
    """

    def __init__(
        self,
        *,
        db: Database,
        containers: Containers,
        leases: Leases,
        runs: Runs,
        steps: Steps,
        feed: Feed,
        clock: Clock,
        supervisor: Supervisor,
    ) -> None:
        self._db = db
        self._containers = containers
        self._leases = leases
        self._runs = runs
        self._steps = steps
        self._feed = feed
        self._clock = clock
        self._supervisor = supervisor

    async def stop(self, actor: Actor, project_id: ProjectId, *, is_forced: bool) -> None:
        """Stop the project and return once it is; its phase says whether it is saved too.

        ConflictError: ``project_busy`` while something holds it awake, unless *is_forced*: then
        what runs gets TERM, the grace and KILL, and holds are released; ``project_in_hand``,
        ``project_creating``, ``owned_elsewhere``. It goes on if the caller goes.
        """
        await self._settle(await self._found(actor, project_id), Goal.STOPPED, is_forced=is_forced)

    async def archive(self, actor: Actor, project_id: ProjectId, *, is_forced: bool) -> None:
        """Stop the project and let its local files go, once all of it is confirmed in the store.

        Raises as ``stop``, and ConflictError ``archive_not_possible`` where no checkpoint holds all
        that makes a project up. Where the store does not answer it is stopped and unsaved, its
        files stay, and the reconciler goes on with it. Its next work brings it back.
        """
        project = await self._found(actor, project_id)
        if not self._steps.can_archive:
            raise ConflictError(
                "the local files of projects cannot be let go here: no checkpoint holds all of them",
                code="archive_not_possible",
                hint="`anyon doctor` says why, in the lines `store` and `installed`.",
            )
        await self._settle(project, Goal.ARCHIVED, is_forced=is_forced)

    async def _settle(self, project: Project, goal: Goal, *, is_forced: bool) -> None:
        held = await self._db.write(
            self._want_asleep, project.id, goal, is_forced, self._clock.now()
        )
        if held:
            raise busy(held)
        self._publish(project.id)
        work = self._asleep(project, goal, is_forced=is_forced)
        await self._supervisor.finish(work, name=f"{_VERBS[goal]} of {project.id}")
        self._publish(project.id)

    async def start(self, actor: Actor, project_id: ProjectId) -> None:
        """Wake the project and return once it runs; it sleeps again after its idle time.

        Raises as any work does that wakes a project.
        """
        project = await self._found(actor, project_id)
        holder = f"start by {actor.user_id}"
        async with self._containers.awake(project, holder=holder, reason="start"):
            log.info("project.start_asked", project=project_id)

    def _want_asleep(
        self,
        connection: Connection,
        project_id: ProjectId,
        goal: Goal,
        is_forced: bool,
        now: datetime,
    ) -> Sequence[Lease]:
        """Record the goal; or, and nothing is recorded then, return who holds the project."""
        other = self._leases.take(connection, project_id)
        if other is not None:
            raise owned_elsewhere(other)
        rows = [
            row for row in lease_rows.all_valid(connection, now) if row.project_id == project_id
        ]
        # A clock that jumped past the rows' end ends no work: what is held here counts too.
        by_id = {lease.id: lease for lease in (*rows, *self._leases.work_here(project_id))}
        held = sorted(by_id.values(), key=lambda lease: (lease.created_at, lease.id))
        if held and not is_forced:
            return held
        reason, detail = "asked", ""
        if is_forced:
            reason, detail = "forced", _named(held)
            for hold in held:
                if hold.holder.startswith(HOLD):
                    lease_rows.remove(connection, hold.id)
                    event_rows.add(
                        connection,
                        project_id,
                        "hold.released",
                        now,
                        reason=reason,
                        detail=hold.reason,
                    )
        is_news = project_rows.want(connection, project_id, goal, instead_of=_LESS_ASLEEP[goal])
        if is_news or is_forced:
            event_rows.add(
                connection, project_id, f"goal.{goal}", now, reason=reason, detail=detail
            )
        return ()

    async def _asleep(self, project: Project, goal: Goal, *, is_forced: bool) -> None:
        if is_forced:
            await self._end_work(project.id)
        for _ in range(_LOOKS):
            async with having(self._containers.lock(project.id), PATIENCE):
                now = await self._db.read(project_rows.find, project.id)
                if now is None or now.deleted_at is not None:
                    raise _unknown()
                held = await self._leases.of(project.id)
                if now.goal is Goal.RUNNING:  # new work came: that has the last word
                    raise busy(held)
                if is_forced or not held:
                    reason = f"{_VERBS[goal]}_{'forced' if is_forced else 'requested'}"
                    act = self._steps.archive if goal is Goal.ARCHIVED else self._steps.stop
                    await act(now, reason)
                    return
            # Somebody looks at something, or a chore of the server's: over in a moment.
            await asyncio.sleep(_LOOK_SECONDS)
        raise in_hand()  # the goal stands: the reconciler stops the project when the look is over

    async def _end_work(self, project_id: ProjectId) -> None:
        """End every process with its chain, all at once, so that the grace is one for all."""
        running = [
            self._runs.stop(process)
            for process in await self._db.read(process_rows.open_ones, project=project_id)
        ]
        for ended in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(ended, AnyonError):  # the stop of the container ends it all the same
                log.warning("process.not_ended", project=project_id, code=ended.code)
            elif isinstance(ended, BaseException):
                raise ended

    async def _found(self, actor: Actor, project_id: ProjectId) -> Project:
        project = await self._db.read(project_rows.get, actor.user_id, project_id)
        if project is None:
            raise _unknown()
        check_acting(project)
        return project

    def _publish(self, project_id: ProjectId) -> None:
        self._feed.publish(Change(kind=Kind.PROJECT, id=project_id, project_id=project_id))


def busy(held: Sequence[Lease]) -> ConflictError:
    """Return the refusal of a stop, which names who holds the project."""
    return ConflictError(
        f"something holds the project awake: {_named(held) or 'new work'}",
        code="project_busy",
        hint="Stop that first, or stop the project with force: what runs is ended then.",
    )


def _named(held: Sequence[Lease]) -> str:
    names = [f"{lease.reason} ({lease.holder})" for lease in held]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _unknown() -> NotFoundError:
    return NotFoundError("there is no such project", code="project_unknown")
