"""Use cases on processes: run a command, read and follow output, read an agent's conversation, kill."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import Connection

from anyon.agents.agent import Patch
from anyon.clock import Clock
from anyon.db import processes as process_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain import actions
from anyon.domain.actors import Actor
from anyon.domain.entities import Process, Project
from anyon.domain.errors import InvalidInputError, NotFoundError
from anyon.domain.ids import ProcessId, ProjectId, UserId
from anyon.domain.layout import WORKSPACE
from anyon.engines.engine import Channel
from anyon.processes.processes import Chunk, Processes
from anyon.services.chains import new_process
from anyon.services.launches import Launches
from anyon.services.logs import ProcessLogs
from anyon.services.runs import Runs
from anyon.services.supervisors import Supervisor


class ProcessRuns:
    """What users do with processes. A foreign or unknown id is NotFoundError (``process_unknown``)."""

    def __init__(
        self,
        *,
        db: Database,
        processes: Processes,
        launches: Launches,
        runs: Runs,
        clock: Clock,
        supervisor: Supervisor,
        logs: ProcessLogs | None = None,
    ) -> None:
        self._logs = logs
        self._db = db
        self._processes = processes
        self._launches = launches
        self._runs = runs
        self._clock = clock
        self._supervisor = supervisor

    async def get(self, actor: Actor, process_id: ProcessId) -> Process:
        """Return one process."""
        return await self._db.read(_found, actor.user_id, process_id)

    async def list(self, actor: Actor, project_id: ProjectId) -> Sequence[Process]:
        """Return all processes of a project, oldest first; NotFoundError (``project_unknown``)."""
        await self._db.read(_project, actor.user_id, project_id)
        return await self._db.read(process_rows.of_project, actor.user_id, project_id)

    async def exec(
        self,
        actor: Actor,
        project_id: ProjectId,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        timeout: timedelta | None = None,
    ) -> Process:
        """Start a durable command in the project's container and return once it has started.

        ``cwd`` is relative to ``/workspace`` or absolute inside. Neither ``env`` nor ``stdin`` is
        recorded. What keeps it from starting is raised here.
        """
        if not argv or not argv[0]:
            raise InvalidInputError("there is no program to run", code="argv_empty")
        await self._db.read(_project, actor.user_id, project_id)
        where = WORKSPACE / (cwd or "")
        process = new_process(
            project_id, None, actions.command(argv, str(where)), self._clock.now()
        )
        spec = self._launches.command_spec(
            process, argv, cwd=where, env=env or {}, stdin=stdin, timeout=timeout
        )
        await self._db.write(process_rows.add, process)
        run = self._runs.begin(process, spec)
        self._runs.publish(process)
        await run.started.wait()
        if run.refusal is not None:
            raise run.refusal
        return await self.get(actor, process.id)

    async def output(
        self, actor: Actor, process_id: ProcessId, channel: Channel, offset: int, limit: int
    ) -> Chunk:
        """Return up to *limit* bytes of one output from *offset* on, at once; never wakes."""
        process = await self.get(actor, process_id)
        if not await self._is_here(process) and offset == 0:
            return Chunk(channel=channel, offset=0, data=b"")  # recorded, but not started yet
        return await self._processes.read(process.project_id, process_id, channel, offset, limit)

    async def follow(
        self, actor: Actor, process_id: ProcessId, offsets: Mapping[Channel, int] | None = None
    ) -> AsyncIterator[Chunk]:
        """Yield output from *offsets* on, as it comes, and end after the exit; never wakes."""
        process = await self.get(actor, process_id)
        if await self._has_started(process):
            async for chunk in self._processes.follow(process.project_id, process_id, offsets):
                yield chunk

    async def _has_started(self, process: Process) -> bool:
        """Wait until a process that is due has been started; False if it never will be."""
        if await self._is_here(process):
            return True
        run = self._runs.find(process.id)
        if run is not None:
            await run.started.wait()
        return await self._processes.state(process.project_id, process.id) is not None

    async def _is_here(self, process: Process) -> bool:
        """Say whether its output is on this machine, brought back from the store if need be."""
        if await self._processes.state(process.project_id, process.id) is not None:
            return True
        if self._logs is None:
            return False
        await self._logs.recall(process)
        return await self._processes.state(process.project_id, process.id) is not None

    async def conversation(
        self, actor: Actor, process_id: ProcessId
    ) -> AsyncIterator[Sequence[Patch]]:
        """Yield an agent's conversation from its beginning, as it grows, and end after the exit.

        ConflictError (``not_an_agent``) for any other process.
        """
        process = await self.get(actor, process_id)
        reader = self._launches.reader(process)
        code = process.exit_code
        if await self._has_started(process):
            async for chunk in self._processes.follow(process.project_id, process_id):
                patches = reader.feed(chunk.data, stderr=chunk.channel is Channel.STDERR)
                if patches:
                    yield patches
            state = await self._processes.state(process.project_id, process_id)
            if state is not None and state.exit is not None:
                code = state.exit.code
        if patches := reader.finish(code):
            yield patches

    async def kill(self, actor: Actor, process_id: ProcessId) -> Process:
        """End the whole tree and return the process as it then stands; the output stays."""
        process = await self.get(actor, process_id)
        await self._supervisor.finish(self._runs.stop(process), name=f"end of {process_id}")
        return await self.get(actor, process_id)


def _found(connection: Connection, user: UserId, process_id: ProcessId) -> Process:
    process = process_rows.get(connection, user, process_id)
    if process is None:
        raise NotFoundError("there is no such process", code="process_unknown")
    return process


def _project(connection: Connection, user: UserId, project_id: ProjectId) -> Project:
    project = project_rows.get(connection, user, project_id)
    if project is None:
        raise NotFoundError("there is no such project", code="project_unknown")
    return project
