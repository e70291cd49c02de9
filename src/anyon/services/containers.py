"""A project's container: made, awake while something holds it, opened for a terminal."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.actors import Actor
from anyon.domain.entities import Lease, Project
from anyon.domain.errors import ConflictError, NotFoundError
from anyon.domain.ids import ProjectId, new_id
from anyon.domain.states import ExitReason, Phase
from anyon.engines.engine import (
    Command,
    ContainerInfo,
    ContainerSpec,
    ContainerState,
    Engine,
    Limits,
    Stream,
)
from anyon.failpoints import reached
from anyon.locks import Locks
from anyon.processes.processes import Processes
from anyon.services import deadlines, phases
from anyon.services.archives import Archives, is_lost, owned_elsewhere
from anyon.services.feed import Change, Feed, Kind
from anyon.services.homes import Homes
from anyon.services.leases import LOOK, Leases
from anyon.services.places import Places, WakeBudget
from anyon.services.shells import HeldStream
from anyon.services.supervisors import Supervisor
from anyon.telemetry import Metrics
from anyon.telemetry.traces import span

log = structlog.get_logger(__name__)

HALT_GRACE = timedelta(seconds=10)
_GLANCE = 0.05
_LOOK_PATIENCE = timedelta(seconds=30)
_RESTORE_DEADLINE = timedelta(hours=2)


class Containers:
    """Keeps one container for each project, awake while something holds it.

    Work takes ``awake``; a look takes ``look``, which wakes nothing. Whoever wants to step a
    project down or to delete it takes its ``lock`` first, so that no start comes between.
    """

    def __init__(
        self,
        *,
        db: Database,
        engine: Engine,
        processes: Processes,
        leases: Leases,
        homes: Homes,
        feed: Feed,
        clock: Clock,
        supervisor: Supervisor,
        places: Places,
        budget: WakeBudget,
        image: str | None = None,
        limits: Limits | None = None,
        archives: Archives | None = None,
        metrics: Metrics | None = None,
        start_deadline: timedelta = timedelta(minutes=2),
        terminal_awake: timedelta = timedelta(minutes=10),
    ) -> None:
        self._terminal_awake = terminal_awake
        self._db = db
        self._engine = engine
        self._processes = processes
        self._leases = leases
        self._homes = homes
        self._feed = feed
        self._clock = clock
        self._supervisor = supervisor
        self._places = places
        self._budget = budget
        self._image = image
        self._limits = limits or Limits()
        self._archives = archives
        self._metrics = metrics or Metrics()
        self._deadline = start_deadline
        self._starts: dict[ProjectId, asyncio.Task[ContainerInfo]] = {}
        self._locks = Locks[ProjectId]()

    def lock(self, project_id: ProjectId) -> asyncio.Lock:
        """Return the project's lock: starts, stops and deletion of its container hold it."""
        return self._locks.of(project_id)

    @asynccontextmanager
    async def awake(
        self,
        project: Project,
        *,
        holder: str,
        reason: str,
        also: Callable[[Connection], object] | None = None,
        is_new: bool = True,
    ) -> AsyncIterator[Lease]:
        """Hold the project's container RUNNING inside the block.

        However many callers, one start. A lease in the database (with heartbeat) says who holds
        and why, before the start and until after the block; *also* is recorded with it. Work that
        is not *is_new* is taken up again, and changes no goal. ConflictError ``owned_elsewhere``.
        """
        async with self._leases.hold(
            project.id, holder=holder, reason=reason, also=also, is_new=is_new
        ) as lease:
            await self.ensure(project)
            yield lease

    @asynccontextmanager
    async def guarded(
        self, project_id: ProjectId, *, holder: str, reason: str
    ) -> AsyncIterator[bool]:
        """Say whether the container runs, and keep it from stepping down inside the block if so.

        It is never woken and nothing is recorded: for short work that may be lost.
        """
        with self._leases.guard(project_id, holder=holder, reason=reason):
            async with self.lock(project_id):  # a step that has not seen the guard is over now
                is_running = await self.is_running(project_id)
            yield is_running

    @asynccontextmanager
    async def creating(self, project: Project) -> AsyncIterator[Lease]:
        """Hold the container RUNNING while the project is being made; its phase stays CREATING."""
        reason = "creation"
        async with self._leases.hold(project.id, holder=project.id, reason=reason) as lease:
            await self.bring_up(project)
            yield lease

    def keep(
        self, project_id: ProjectId, *, holder: str, reason: str
    ) -> AbstractAsyncContextManager[Lease]:
        """Keep the project from stepping down inside the block, without waking it."""
        return self._leases.hold(project_id, holder=holder, reason=reason, is_new=False)

    @asynccontextmanager
    async def look(self, project: Project) -> AsyncIterator[bool]:
        """Say whether the container runs, and keep it so inside the block for a look at its repository.

        It is never woken, but a start or a step that is under way is waited for: ConflictError
        ``project_in_hand`` after a while; else as ``ensure``. It is no activity.
        """
        phases.check_acting(project)
        await self._leases.claim(project.id)
        if (start := self._starts.get(project.id)) is not None:
            await asyncio.wait({start}, timeout=_LOOK_PATIENCE.total_seconds())
        with self._leases.guard(project.id, holder=f"look {new_id()}", reason=LOOK):
            async with deadlines.having(self.lock(project.id), _LOOK_PATIENCE):
                is_running = await self.is_running(project.id)
            if is_running:
                yield True
                return
        yield False  # without the guard: what holds a sleeping project wakes it

    async def is_running(self, project_id: ProjectId) -> bool:
        """Say whether the container runs now; changes nothing."""
        info = await self._engine.inspect(project_id)
        return info is not None and info.state is ContainerState.RUNNING

    async def ensure(self, project: Project) -> ContainerInfo:
        """Bring the container to RUNNING, from whatever state, and record the phase.

        ConflictError (``project_creating``) while the project is being made. OverLimitError:
        ``wake_budget``, ``no_capacity``.
        """
        phases.check_acting(project)
        return await self.bring_up(project)

    async def wake(self, project: Project) -> None:
        """Do as ``ensure``, but return while the project waits in the line: it goes on by itself."""
        waking = self._supervisor.spawn(self.ensure(project), name=f"waking of {project.id}")
        while not waking.done():
            await asyncio.wait({waking}, timeout=_GLANCE)
            if not waking.done() and self._places.position(project.id) is not None:
                return
        await waking

    async def record(
        self, project_id: ProjectId, phase: Phase, *, reason: str, detail: str = ""
    ) -> None:
        """Record an observed phase, as an event too, if it is news."""
        now = self._clock.now()
        if await self._db.write(
            phases.record, project_id, phase, now, reason=reason, detail=detail
        ):
            self._feed.publish(Change(kind=Kind.PROJECT, id=project_id, project_id=project_id))

    async def bring_up(self, project: Project) -> ContainerInfo:
        """Make, start or thaw the container as need be, once for all who ask meanwhile.

        It is recorded, save for a project that is being made.
        """
        with span("container.bring_up", project=project.id):
            start = self._starts.get(project.id)
            if start is None:
                work = self._bring_up(project)
                start = self._supervisor.spawn(work, name=f"start of {project.id}")
                self._starts[project.id] = start
                start.add_done_callback(lambda _: self._starts.pop(project.id, None))
            return await asyncio.shield(start)

    async def _bring_up(self, project: Project) -> ContainerInfo:
        # Looked at under the lock too: who steps the project down holds it from the moment that
        # it has seen no lease, and whoever is here has one already.
        began = self._clock.monotonic()
        # The line is waited in without the lock, so that others can look at the project meanwhile.
        async with self._places.taken(project), self.lock(project.id):
            async with deadlines.start_within(self._deadline, project):
                await self._homes.require(project)
                info = await self._with_its_files(project)
                is_up = info is not None and info.state is ContainerState.RUNNING
                if info is not None and is_up and project.phase in phases.IN_USE:
                    return info
                found = await self._not_deleted(project.id)
                # What runs over files that are still away was not started by this server.
                if info is not None and is_up and found.phase is not Phase.RESTORING:
                    await self.record(project.id, Phase.RUNNING, reason="woken")
                    return info
                tier = phases.tier_of(found.phase, info)
            if found.phase is not Phase.CREATING:
                self._budget.spend(project.id)
            async with deadlines.start_within(_RESTORE_DEADLINE, project):
                info = await self._bring_files_back(found, info)
                if self._archives is not None and tier in {"stopped", "archived"}:
                    is_there = info is not None
                    ensure = partial(self._made, found)
                    await self._archives.settle(found, is_there=is_there, ensure=ensure)
            async with deadlines.start_within(self._deadline, project):
                if info is not None and info.state is ContainerState.FROZEN:
                    info = await self._engine.thaw(project.id)
                    reached("wake.thawed")
                else:
                    info = await self.start_stopped(project, is_there=info is not None)
                    self._keep_claim(found)
            if project.phase is not Phase.CREATING:
                await self.record(project.id, Phase.RUNNING, reason="woken")
                reached("wake.recorded")
            self._metrics.woken(tier, self._clock.monotonic() - began)
            return info

    async def drop_stale(self, project: Project) -> bool:
        """Stop the container if it shows an earlier life of the mount, and say whether it did."""
        async with self.lock(project.id):
            info = await self._engine.inspect(project.id)
            return info is not None and await self._with_its_files(project) != info

    async def _with_its_files(self, project: Project) -> ContainerInfo | None:
        """Return what is known of the container; one that shows a dead mount is stopped first."""
        info = await self._engine.inspect(project.id)
        if info is None or not self._homes.bucket.is_stale(project, info):
            return info
        await self.rest(project.id)
        await self.record(project.id, Phase.STOPPED_UNSAVED, reason="mount_lost")
        self._metrics.mount.restarted()
        return await self._engine.inspect(project.id)

    async def _bring_files_back(
        self, project: Project, info: ContainerInfo | None
    ) -> ContainerInfo | None:
        """Restore files that are away, if they are, and return what is known of the container then.

        That they are back is recorded before the container starts: a restore that is finished
        by another life of the server puts other directories under what runs.
        """
        if self._archives is None or not self._archives.must_restore(project):
            return info
        wanted = self._archives.wanted(project)
        await self.record(project.id, Phase.RESTORING, reason="woken", detail=wanted or "")
        reached("wake.restoring_recorded")
        await self.rest(project.id)
        with self._archives.progresses.waking(project.id) as progress:
            await self._archives.bring_back(project, wanted, progress=progress)
        phase = Phase.STOPPED if wanted is None else Phase.STOPPED_UNSAVED
        await self.record(project.id, phase, reason="restored")
        reached("wake.files_back")
        return await self._engine.inspect(project.id)

    def _keep_claim(self, project: Project) -> None:
        """Learn soon, and not at the next save only, that another server has the project; nobody waits."""
        if self._archives is not None and project.phase is not Phase.CREATING:
            work = self._archives.keep(project)
            self._supervisor.spawn(work, name=f"claim of {project.id}")

    async def start_stopped(self, project: Project, *, is_there: bool) -> ContainerInfo:
        """Start the container over *project*'s path, for a caller that holds the lock."""
        info = await self._started_as_it_is(project) if is_there else None
        if info is None:
            await self._made(project)
            info = await self._engine.start(project.id)
        reached("start.container_started")
        # What wants it up will start something: the way in is opened while the rest is put in order.
        self._processes.prepare(project.id)
        # Whatever ran in an earlier life of the container is over: it gets its exit now.
        await self._processes.adopt(project.id)
        reached("start.processes_adopted")
        log.info("container.started", project=project.id)
        return info

    async def _made(self, project: Project) -> None:
        await self._homes.make(project)
        reached("start.directories_made")
        await self._engine.ensure(self._spec(project))
        reached("start.container_made")

    async def _started_as_it_is(self, project: Project) -> ContainerInfo | None:
        """Start the container that was seen a moment ago; None if it was removed since."""
        await self._homes.make(project)
        try:
            return await self._engine.start(project.id)
        except NotFoundError:
            return None

    async def _not_deleted(self, project_id: ProjectId) -> Project:
        found = await self._db.read(project_rows.find, project_id)
        if found is None or found.deleted_at is not None:
            raise ConflictError("the project was deleted", code="project_deleted")
        if is_lost(found):
            raise owned_elsewhere()
        return found

    def _spec(self, project: Project) -> ContainerSpec:
        return ContainerSpec(
            project=project.id,
            mounts=self._homes.mounts(project),
            system=self._homes.system(project.id),
            image=project.image or self._image,
            limits=self._limits,
        )

    async def halt(self, project_id: ProjectId) -> None:
        """Stop the container; what ran in it has ended. Absent or stopped is success."""
        async with self.lock(project_id):
            await self.rest(project_id)

    async def rest(self, project_id: ProjectId) -> None:
        """Do as ``halt``, for a caller that holds the lock."""
        if await self._engine.inspect(project_id) is not None:
            await self._engine.stop(project_id, grace=HALT_GRACE)
            await self._processes.container_stopped(project_id, ExitReason.CONTAINER_STOPPED)

    async def remove(self, project_id: ProjectId) -> None:
        """Remove the container with all that runs in it; absent is success."""
        async with self.lock(project_id):
            await self._engine.remove(project_id)
        self._metrics.project_deleted(project_id)
        self._budget.forget(project_id)

    async def open_shell(self, actor: Actor, project_id: ProjectId, command: Command) -> Stream:
        """Open *command* (with a terminal, usually) inside; see HeldStream for how long it holds."""
        project = await self._found(actor, project_id)
        holder = f"shell {new_id()}"

        @asynccontextmanager
        async def new_hold() -> AsyncIterator[Lease]:
            # As it is recorded now: the phase may be another one than at the opening.
            now = await self._found(actor, project_id)
            async with self.awake(now, holder=holder, reason="terminal") as lease:
                yield lease

        hold = new_hold()
        await hold.__aenter__()
        try:
            stream = await self._engine.open(project.id, command)
        except BaseException:
            await hold.__aexit__(None, None, None)
            raise
        shell = HeldStream(
            stream,
            hold,
            new_hold=new_hold,
            is_stopped=lambda: self._was_stopped(project_id),
            clock=self._clock,
            awake_for=self._terminal_awake,
        )
        self._supervisor.spawn(shell.watch(), name=f"watch over {holder}")
        return shell

    async def _was_stopped(self, project_id: ProjectId) -> bool:
        found = await self._db.read(project_rows.find, project_id)
        return found is None or found.deleted_at is not None or found.phase not in phases.UP

    async def _found(self, actor: Actor, project_id: ProjectId) -> Project:
        project = await self._db.read(project_rows.get, actor.user_id, project_id)
        if project is None:
            raise NotFoundError("there is no such project", code="project_unknown")
        return project
