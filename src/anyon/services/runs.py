"""Runs: each recorded process carried from its start to all that follows from its end.

A process is recorded first (open), then started, followed, ended; then what comes after it is
done (commit, the next of its chain, the task's move) and recorded together with its closing. A
server that dies anywhere in between finds it open again and goes on from what it sees.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import PurePosixPath

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import attempts as attempt_rows
from anyon.db import processes as process_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.entities import Attempt, Process, Project
from anyon.domain.errors import AnyonError, ConflictError, UnavailableError
from anyon.domain.ids import ProcessId, ProjectId
from anyon.domain.states import ExitReason, RunReason
from anyon.engines.engine import Channel
from anyon.failpoints import reached
from anyon.git.repository import Repositories
from anyon.processes.processes import Exit, Processes, ProcessSpec
from anyon.services.attachments import Attachments
from anyon.services.chains import Chains
from anyon.services.containers import Containers
from anyon.services.feed import Change, Feed, Kind
from anyon.services.launches import Launches
from anyon.services.supervisors import Supervisor
from anyon.telemetry import Metrics
from anyon.telemetry.traces import span

log = structlog.get_logger(__name__)
SESSION_BYTES = 1024 * 1024
"""How much of an agent's output is read in search of its session."""
START_TRIES = 5
PAUSE = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What is true of a process at the moment of its start; the project may be set up by now."""

    is_stopping: bool
    attempt: Attempt | None
    project: Project | None


@dataclass(slots=True, eq=False)
class Run:
    """A process that this server carries. ``lock`` parts its start from a stop that comes just then.

    ``due`` is what its caller has just read and recorded, so that it is not looked up again.
    ``hold`` holds its container awake already, from before its record on; ``lease`` holds the
    project, awake or not, from before the server served. ``when_started`` is called once this
    server has started the program; ``started_at`` is when that was, whoever did it.
    """

    process: Process
    spec: ProcessSpec | None
    hold: AsyncExitStack | None = None
    lease: AsyncExitStack | None = None
    due: Due | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    has_turn: bool = False
    task: asyncio.Task[None] | None = None
    refusal: AnyonError | None = None
    when_started: Callable[[], None] | None = None
    started_at: datetime | None = None


class Runs:
    """Carries processes in the background, and ends them when asked."""

    def __init__(
        self,
        *,
        db: Database,
        processes: Processes,
        repositories: Repositories,
        containers: Containers,
        launches: Launches,
        feed: Feed,
        clock: Clock,
        supervisor: Supervisor,
        stop_grace: timedelta,
        metrics: Metrics | None = None,
    ) -> None:
        self._db = db
        self._processes = processes
        self._containers = containers
        self._launches = launches
        self._feed = feed
        self._clock = clock
        self._supervisor = supervisor
        self._grace = stop_grace
        self._chains = Chains(db=db, repositories=repositories, clock=clock, metrics=metrics)
        self._attachments = Attachments(db=db, repositories=repositories, clock=clock)
        self._runs: dict[ProcessId, Run] = {}

    def begin(
        self,
        process: Process,
        spec: ProcessSpec | None = None,
        *,
        hold: AsyncExitStack | None = None,
        due: Due | None = None,
    ) -> Run:
        """Carry a recorded process from now on; *spec* is for those that no record describes.

        *hold* is what holds its container awake already: it is taken over, and closed at the end.
        *due* spares the looking up of what the caller has just recorded, in this same moment.
        """
        run = Run(process=process, spec=spec, hold=hold, due=due)
        self._runs[process.id] = run
        run.task = self._supervisor.spawn(self._carry(run), name=f"process {process.id}")
        return run

    def find(self, process: ProcessId) -> Run | None:
        """Return the run of a process that is carried now."""
        return self._runs.get(process)

    async def stop(self, process: Process) -> None:
        """End a process (or keep it from being started) and its chain, and wait until all is recorded."""
        await self._db.write(process_rows.stop, process.id, self._clock.now())
        run = self._runs.get(process.id)
        if run is None or run.task is None:
            return
        run.stopping.set()
        async with run.lock:
            if await self._processes.state(process.project_id, process.id) is not None:
                await self._processes.kill(process.project_id, process.id, grace=self._grace)
        await asyncio.wait([run.task])

    async def abandon(self, project: ProjectId) -> None:
        """Stop carrying the processes of a project that is being deleted."""
        tasks = [
            run.task
            for run in self._runs.values()
            if run.process.project_id == project and run.task is not None
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, run: Run) -> None:
        try:
            while not await self._tried(run):
                await self._clock.sleep(PAUSE)
        finally:
            self._runs.pop(run.process.id, None)
            run.started.set()
            run.ended.set()
            for held in (run.hold, run.lease):
                if held is not None:
                    await held.aclose()

    async def _tried(self, run: Run) -> bool:
        """Carry the process to its conclusion; False when that has to be tried again."""
        process = run.process
        try:
            project = run.due.project if run.due else None
            project = project or await self._db.read(project_rows.find, process.project_id)
        except AnyonError as error:
            log.warning("process.not_looked_up", process=process.id, error=str(error))
            return False
        if project is None:
            return True
        try:
            async with self._awake(run, project):
                end = await self._run(run, project)
                following = await self._conclude(run, project, end)
                if following is not None:  # before the lease is given back
                    self.begin(following)
                return True
        except AnyonError as error:
            log.warning("process.failed", process=process.id, code=error.code, error=str(error))
            return await self._refused(run, project, error)

    def _awake(self, run: Run, project: Project) -> AbstractAsyncContextManager[object]:
        hold, run.hold = run.hold, None
        if hold is not None:
            return hold
        reason = str(run.process.run_reason)
        # One that was taken up after a restart is no new work: a stop that was asked for stands.
        is_new = run.lease is None
        return self._containers.awake(project, holder=run.process.id, reason=reason, is_new=is_new)

    async def _refused(self, run: Run, project: Project, error: AnyonError) -> bool:
        """Record as failed what could not be started, or whose container cannot be woken any more.

        What lives is never given up, and what has only to be concluded waits until that can be.
        """
        try:
            state = await self._processes.state(project.id, run.process.id)
            is_alive = state is not None and state.exit is None
            if is_alive or (state is not None and isinstance(error, UnavailableError)):
                return False
            run.refusal = error
            end = None if state is None else state.exit
            lost = Exit(code=None, reason=ExitReason.INTERRUPTED, at=self._clock.now())
            await self._conclude(run, project, end or lost, can_commit=False, why=error)
        except AnyonError as again:
            log.warning("process.conclusion_failed", process=run.process.id, error=str(again))
            return False
        return True

    async def _conclude(
        self,
        run: Run,
        project: Project,
        end: Exit,
        *,
        can_commit: bool = True,
        why: AnyonError | None = None,
    ) -> Process | None:
        await self._chains.record_exit(run.process, end, why, started_at=run.started_at)
        self.publish(run.process)
        following = await self._chains.advance(run.process, project, end, can_commit=can_commit)
        self.publish(run.process)
        if following is not None:
            self.publish(following)
        run.ended.set()
        return following

    def publish(self, process: Process) -> None:
        """Tell the feed that a process has changed, and so the task's standing."""
        self._feed.publish(
            Change(
                kind=Kind.PROCESS,
                id=process.id,
                project_id=process.project_id,
                attempt_id=process.attempt_id,
            )
        )

    async def _run(self, run: Run, project: Project) -> Exit:
        process = run.process
        state = await self._processes.state(project.id, process.id)
        if state is not None:
            run.started_at = state.started_at
            if state.exit is None and await self._db.read(process_rows.is_stopping, process.id):
                # A stop that was asked of the server's life before is carried out by this one.
                await self._processes.kill(project.id, process.id, grace=self._grace)
        else:
            refused = await self._start(run, project)
            if refused is not None:
                return refused
            if run.when_started is not None:
                run.when_started()
        run.started.set()
        if process.run_reason is RunReason.CODINGAGENT:
            await self._learn_session(process)
        return await self._processes.wait(project.id, process.id)

    async def _start(self, run: Run, project: Project) -> Exit | None:
        """Start the process; return an exit instead where it was not to be started any more."""
        await self._wait_turn(run)
        async with run.lock:
            due, run.due = run.due, None
            if due is None:
                due = await self._db.read(_due, run.process)
            # A stop that was recorded after what its caller knew has found this run, and told it.
            if due.is_stopping or run.stopping.is_set():
                return Exit(code=None, reason=ExitReason.KILLED_BY_USER, at=self._clock.now())
            spec = run.spec or await self._specify(run.process, due.attempt, due.project or project)
            for left in reversed(range(START_TRIES)):
                try:
                    with span(
                        "process.start", process=run.process.id, reason=run.process.run_reason
                    ):
                        state = await self._processes.start(project.id, spec)
                    run.started_at = state.started_at
                    break
                except UnavailableError:
                    if left == 0:
                        raise
                    await self._clock.sleep(PAUSE)
        return None

    async def _specify(
        self, process: Process, attempt: Attempt | None, project: Project
    ) -> ProcessSpec:
        worktree: PurePosixPath | None = None
        if process.attempt_id is not None:
            if attempt is None or attempt.worktree_deleted:
                raise ConflictError("the attempt's worktree is gone", code="worktree_deleted")
            worktree = await self._launches.worktree(project, attempt)
            if process.before_head_commit is None:
                head = await self._chains.head(project.id, worktree)
                changes = {"before_head_commit": head}
                await self._db.write(process_rows.change, process.id, changes)
            await self._attachments.lay(process, attempt, worktree)
        return self._launches.spec(project, process, worktree)

    async def _wait_turn(self, run: Run) -> None:
        """Let the setup scripts of a project run one by one, oldest first."""
        if run.process.run_reason is not RunReason.SETUPSCRIPT:
            return
        while (other := self._ahead(run)) is not None and not run.stopping.is_set():
            await _either(other.ended, run.stopping)
        run.has_turn = True

    def _ahead(self, run: Run) -> Run | None:
        """Return a run whose setup script goes before that of *run*."""
        mine = (run.process.created_at, run.process.id)
        for other in self._runs.values():
            # One that is younger may have come here first: it has its turn then.
            is_before = other.has_turn or (other.process.created_at, other.process.id) < mine
            is_setup = other.process.run_reason is RunReason.SETUPSCRIPT
            is_here = other.process.project_id == run.process.project_id
            if is_setup and is_here and is_before and other is not run and not other.ended.is_set():
                return other
        return None

    async def _learn_session(self, process: Process) -> None:
        """Record the agent's session as soon as its output tells it."""
        reader = self._launches.reader(process)
        count = 0
        async for chunk in self._processes.follow(process.project_id, process.id):
            reader.feed(chunk.data, stderr=chunk.channel is Channel.STDERR)
            if reader.session_id is not None:
                changes: Mapping[str, object] = {"session_id": reader.session_id}
                await self._db.write(process_rows.change, process.id, dict(changes))
                return
            count += len(chunk.data)
            if count > SESSION_BYTES:
                return

    async def recover(self, project: ProjectId) -> None:
        """Take up a project's open processes: what runs is followed, what ended is concluded, what is due is started.

        When this returns each of them holds its project, so no step down comes before its run
        has woken the container; that may take its time in the background.
        """
        await self._processes.adopt(project)
        reached("adopt.processes_read")
        for process in await self._db.read(process_rows.open_ones, project=project):
            if process.id not in self._runs:
                lease = AsyncExitStack()
                keep = self._containers.keep(project, holder=process.id, reason="recovery")
                await lease.enter_async_context(keep)
                self.begin(process).lease = lease


def _due(connection: Connection, process: Process) -> Due:
    attempt = process.attempt_id and attempt_rows.find(connection, process.attempt_id)
    return Due(
        is_stopping=process_rows.is_stopping(connection, process.id),
        attempt=attempt or None,
        project=project_rows.find(connection, process.project_id),
    )


async def _either(*events: asyncio.Event) -> None:
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
