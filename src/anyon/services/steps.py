"""Stepping a project down, waking it for a lease, and repairing what the record says of it."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import events as event_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.capacity import who_goes
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError
from anyon.domain.ids import ProjectId
from anyon.domain.life import Decision, Facts, Step, Tiers, next_step
from anyon.domain.lines import who_makes_room
from anyon.domain.repairs import Repair, repair
from anyon.domain.states import ExitReason, Phase
from anyon.engines.engine import ContainerState, Engine
from anyon.failpoints import reached
from anyon.processes.processes import Processes
from anyon.services.archives import Archives, is_lost
from anyon.services.containers import Containers
from anyon.services.leases import LOOK, Leases
from anyon.services.views import Views
from anyon.telemetry import Metrics

log = structlog.get_logger(__name__)

_URGENT = frozenset({"capacity", "memory_pressure"})
"""Reasons for a stop that wait for no save: the room is needed now. The phase says when it is saved."""
_SAVED_WITHIN = timedelta(minutes=2)
"""How long a container waits for a save before its stop; a longer one goes on after it."""

SEEN: Mapping[ContainerState | None, Phase] = {
    ContainerState.RUNNING: Phase.RUNNING,
    ContainerState.FROZEN: Phase.FROZEN,
    ContainerState.STOPPED: Phase.STOPPED,
    None: Phase.ABSENT,
}


class Steps:
    """Carries out one project's next step, under its lock: observe, repair, decide, act, record.

    New work takes its lease before it asks for the container, and asks under the same lock; so
    either the lease is seen here and nothing happens, or the work comes after the step and wakes
    the project again.
    """

    def __init__(
        self,
        *,
        db: Database,
        engine: Engine,
        processes: Processes,
        containers: Containers,
        leases: Leases,
        archives: Archives | None,
        clock: Clock,
        tiers: Tiers,
        grace: timedelta,
        views: Views,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._db = db
        self._engine = engine
        self._processes = processes
        self._containers = containers
        self._leases = leases
        self._archives = archives
        self._clock = clock
        self._tiers = tiers
        self._grace = grace
        self._views = views

    async def take(self, project_id: ProjectId) -> Decision | None:
        """Bring one project's record to what is seen and carry out its next step, if there is one.

        One that somebody has in hand (it may be hours, for a restore) is left to the next look.
        """
        if self._containers.lock(project_id).locked():
            return None
        await self._foresee_freeze(project_id)
        async with self._containers.lock(project_id):
            project = await self._db.read(project_rows.find, project_id)
            if project is None or project.deleted_at is not None or is_lost(project):
                return None
            project = await self._repaired(project)
            if project.phase is Phase.ARCHIVING and self._archives is not None:
                # The lock is ours, so whoever began this is gone: it is finished.
                await self._archive(project, self._archives, "archiving_interrupted")
                self._metrics.stepped(Step.ARCHIVE, "archiving_interrupted")
                return Decision(step=Step.ARCHIVE, reason="archiving_interrupted")
            facts = Facts(phase=project.phase, leases=await self._leases.of(project_id))
            decision = next_step(project, facts=facts, tiers=self._tiers, now=self._clock.now())
            if decision is not None and decision.step is not Step.WAKE:
                await self._carry_out(project, decision)
        if decision is not None and decision.step is Step.WAKE:
            await self._containers.wake(project)  # takes the lock itself, like any work
        if decision is not None:
            self._metrics.stepped(decision.step, decision.reason)
        return decision

    async def _foresee_freeze(self, project_id: ProjectId) -> None:
        """Ask what may be asked while the project is frozen, if it is about to be.

        Without the lock: new work does not wait for this, and then there is no freeze.
        """
        project = await self._db.read(project_rows.find, project_id)
        if project is None or project.phase is not Phase.RUNNING or is_lost(project):
            return
        facts = Facts(phase=project.phase, leases=await self._leases.of(project_id))
        decision = next_step(project, facts=facts, tiers=self._tiers, now=self._clock.now())
        if decision is None or decision.step is not Step.FREEZE:
            return
        with self._leases.guard(project_id, holder="freeze", reason=LOOK):
            if await self._containers.is_running(project_id):
                await self._views.foresee(project, anew=True)
                reached("freeze.foreseen")

    async def make_room(self) -> bool:
        """Stop the one frozen project that is longest idle and held by nobody; False if there is none."""
        projects = await self._db.read(project_rows.living)
        held = frozenset(lease.project_id for lease in await self._leases.all_held())
        for candidate in who_makes_room(projects, held):
            try:
                if await self._stopped_unheld(candidate.id, "capacity", may_run=False):
                    return True
            except AnyonError as error:  # another may go in its place
                log.warning("project.made_no_room", project=candidate.id, code=error.code)
        return False

    async def relieve(self, detail: str) -> ProjectId | None:
        """Stop one project to free memory, *detail* saying why, and return it; None if none may go."""
        projects = await self._db.read(project_rows.living)
        held = frozenset(lease.project_id for lease in await self._leases.all_held())
        for candidate in who_goes(projects, held, self._clock.now()):
            try:
                if await self._stopped_unheld(
                    candidate.id, "memory_pressure", may_run=True, detail=detail
                ):
                    return candidate.id
            except AnyonError as error:  # another may go in its place
                log.warning("project.freed_no_memory", project=candidate.id, code=error.code)
        return None

    async def _stopped_unheld(
        self, project_id: ProjectId, reason: str, *, may_run: bool, detail: str = ""
    ) -> bool:
        async with self._containers.lock(project_id):
            project = await self._db.read(project_rows.find, project_id)
            if project is None or project.deleted_at is not None:
                return False
            held = frozenset(lease.project_id for lease in await self._leases.of(project_id))
            now = self._clock.now()
            free = who_goes([project], held, now) if may_run else who_makes_room([project], held)
            if not free or is_lost(project):
                return False  # somebody came for it meanwhile
            await self._stop(project, reason, detail)
        self._metrics.stepped(Step.STOP, reason)
        return True

    async def _repaired(self, project: Project) -> Project:
        info = await self._engine.inspect(project.id)
        found = repair(project.phase, SEEN[info.state if info else None])
        if found is None:
            return project
        if found.ended is not None:
            await self._end_processes(project, found)
            reached("repair.exits_given")
        await self._containers.record(project.id, found.phase, reason=found.reason)
        reached("repair.recorded")
        self._metrics.repaired(found.reason)
        log.info("project.repaired", project=project.id, phase=found.phase, reason=found.reason)
        return await self._db.read(project_rows.find, project.id) or project

    async def _end_processes(self, project: Project, found: Repair) -> None:
        if found.ended is not None:
            await self._processes.container_stopped(project.id, found.ended)

    async def _carry_out(self, project: Project, decision: Decision) -> None:
        match decision.step:
            case Step.FREEZE:
                await self._engine.freeze(project.id)
                reached("freeze.frozen")
                await self._containers.record(project.id, Phase.FROZEN, reason=decision.reason)
                reached("freeze.recorded")
            case Step.STOP:
                await self._stop(project, decision.reason)
            case Step.SAVE:
                await self._save_stopped(project)
            case Step.ARCHIVE if self._archives is not None:
                await self._archive(project, self._archives, decision.reason)
            case Step.RESTORE if self._archives is not None:
                await self._finish_restore(project, self._archives, decision.reason)
            case Step.FAIL:
                await self._containers.record(project.id, Phase.ERROR, reason=decision.reason)
            case _:
                log.warning("step.not_carried_out", project=project.id, step=decision.step)

    async def _finish_restore(self, project: Project, archives: Archives, reason: str) -> None:
        await self._containers.rest(project.id)  # nothing runs over what is replaced
        await archives.bring_back(project, archives.wanted(project))
        # It may not be the last state that the store has: that is seen to like any stop's.
        await self._containers.record(project.id, Phase.STOPPED_UNSAVED, reason=reason)
        await self._save_stopped(project)

    @property
    def can_archive(self) -> bool:
        """Whether a checkpoint holds all that makes a project up here, so that its files may go."""
        return self._archives is not None and self._tiers.can_archive

    async def archive(self, project: Project, reason: str) -> None:
        """Stop a project, and let its local files go once all of it is in the store; its lock is the caller's.

        Where the store does not answer it is stopped and not archived: the next look tries again.
        """
        await self.stop(project, reason)
        rested = await self._db.read(project_rows.find, project.id)
        if rested is None or self._archives is None:
            return
        if rested.phase is Phase.RESTORING:  # what is half here is no state that may go
            await self._finish_restore(rested, self._archives, reason)
            rested = await self._db.read(project_rows.find, project.id) or rested
        # One whose container was lost has its files here; one that has none has nothing to let go.
        # Whoever began to archive it and did not end is gone, for the lock is ours: it is finished.
        is_here = rested.phase is Phase.ABSENT and await asyncio.to_thread(Path(rested.path).is_dir)
        if is_here or rested.phase in {Phase.STOPPED, Phase.ARCHIVING}:
            await self._archive(rested, self._archives, reason)

    async def stop(self, project: Project, reason: str) -> None:
        """Stop a project because somebody wants it, whoever holds it; the caller holds its lock.

        One that sleeps already is left so, and saved if it is not.
        """
        project = await self._repaired(project)
        if project.phase in {Phase.RUNNING, Phase.FROZEN}:
            await self._stop(project, reason)
        elif project.phase is Phase.STOPPED_UNSAVED:
            await self._save_stopped(project)
        elif project.phase in {Phase.RESTORING, Phase.ARCHIVING}:
            # What runs over files that are on their way was not started by this server.
            await self._containers.rest(project.id)

    async def _stop(self, project: Project, reason: str, detail: str = "") -> None:
        """End what runs, save, stop the container, and say that it is stopped once that is in the store.

        The first save is of what nothing works on any more; a second look after the stop takes in
        what the container's own end has changed, which mostly is nothing.
        """
        await self._containers.record(project.id, Phase.STOPPING, reason=reason, detail=detail)
        reached("stop.recorded")
        await self._engine.thaw(project.id)
        reached("stop.thawed")
        has_run = await self._end_running(project.id) or project.phase is not Phase.FROZEN
        reached("stop.processes_ended")
        if reason not in _URGENT:
            await self._views.foresee(project, anew=has_run, is_stopping=True)
        elif has_run:
            await self._views.forget(project.id)  # it may have changed what was seen
        reached("stop.foreseen")
        answers = reason in _URGENT or await self._save_stopping(project)
        reached("stop.state_saved")
        await self._engine.stop(project.id, grace=self._grace)
        reached("stop.container_stopped")
        await self._processes.container_stopped(project.id, ExitReason.CONTAINER_STOPPED)
        reached("stop.exits_given")
        await self._containers.record(project.id, Phase.STOPPED_UNSAVED, reason=reason)
        reached("stop.unsaved_recorded")
        if answers:  # else who waits for this is not kept waiting: the next look tries again
            await self._save_stopped(project)

    async def _archive(self, project: Project, archives: Archives, reason: str) -> None:
        await archives.confirm(project)
        reached("archive.state_confirmed")
        await self._containers.record(project.id, Phase.ARCHIVING, reason=reason)
        reached("archive.recorded")
        async with archives.still(project):
            await self._engine.remove(project.id)
        reached("archive.container_removed")
        await archives.release(project)
        reached("archive.files_released")
        await self._containers.record(project.id, Phase.ARCHIVED, reason="released")
        reached("archive.confirmed")

    async def _end_running(self, project_id: ProjectId) -> bool:
        """Give everything that runs TERM, the grace, and KILL, all at once: the grace is for all of them.

        Say whether anything ran.
        """
        running = [
            self._processes.kill(
                project_id, state.id, reason=ExitReason.CONTAINER_STOPPED, grace=self._grace
            )
            for state in await self._processes.list(project_id)
            if state.exit is None
        ]
        for ended in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(ended, AnyonError):  # the container's stop ends it all the same
                log.warning("process.not_ended", project=project_id, code=ended.code)
            elif isinstance(ended, BaseException):
                raise ended
        return bool(running)

    async def _save_stopping(self, project: Project) -> bool:
        """Confirm the state in the store while the container stands; False if it could not be saved.

        The container is stopped all the same: the phase says that it is unsaved, the files stay
        where they are, and it is tried again.
        """
        if self._archives is None:
            return True
        try:
            async with asyncio.timeout(_SAVED_WITHIN.total_seconds()):
                await self._archives.save(project, reason="stop")
        except TimeoutError:
            log.info("project.saved_after_stop", project=project.id)
        except AnyonError as error:
            await self._save_failed(project, error)
            return False
        return True

    async def _save_stopped(self, project: Project) -> None:
        if self._archives is None:  # this server was set to keep no checkpoints
            await self._containers.record(project.id, Phase.STOPPED, reason="not_kept")
            return
        try:
            await self._archives.save(project, reason="stop")
        except AnyonError as error:
            # The files stay where they are; the phase shows it, and the next tick tries again.
            await self._save_failed(project, error)
            return
        reached("stop.checkpoint_confirmed")
        await self._containers.record(project.id, Phase.STOPPED, reason="saved")
        reached("stop.confirmed")

    async def _save_failed(self, project: Project, error: AnyonError) -> None:
        log.warning("project.save_failed", project=project.id, code=error.code)
        await self._db.write(self._note_failure, project.id, error)

    def _note_failure(
        self, connection: Connection, project_id: ProjectId, error: AnyonError
    ) -> None:
        now = self._clock.now()
        event_rows.add(
            connection, project_id, "save.failed", now, reason=error.code, detail=error.message
        )
