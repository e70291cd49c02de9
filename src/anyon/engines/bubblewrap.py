"""The embedded engine: sandboxes by bubblewrap over the host's own system.

For one trusted user: the network is the host's, the kernel is shared, and as root there is no
user namespace. What it gives is a place of its own for each project (files, processes, installed
things), with the host's secrets and other projects out of sight.
"""

import asyncio
import errno
import os
import platform
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from anyon.clock import Clock, SystemClock
from anyon.domain.errors import ConflictError, EngineFailedError, NotFoundError
from anyon.domain.ids import ProjectId, new_id
from anyon.engines import sandbox_processes, sandboxes
from anyon.engines.bubblewrap_records import Record, Records
from anyon.engines.bubblewrap_states import alive, describe, state_of, translated, wake
from anyon.engines.cgroups import ControlGroups, Hierarchies
from anyon.engines.engine import (
    Command,
    ContainerInfo,
    ContainerSpec,
    ContainerState,
    Health,
    Stats,
    Stream,
)
from anyon.engines.sandbox_ends import KILLED, Meter, end
from anyon.engines.sandbox_plans import environment, machine_environment
from anyon.engines.sandbox_processes import Identity
from anyon.engines.sandbox_roots import RootKind, find_kind, make_plan
from anyon.engines.sandbox_streams import opened
from anyon.engines.sandbox_trees import remove_tree
from anyon.failpoints import reached
from anyon.locks import Locks

T = TypeVar("T")


class BubblewrapEngine:
    """Containers as sandboxes whose facts lie below *state*.

    *hidden* are host directories that no container may see (Anyon's home, above all); *state* is
    hidden too. *control_groups* None looks for the machine's; an empty ``Hierarchies`` does without.
    """

    def __init__(
        self,
        state: Path,
        hidden: Sequence[Path] = (),
        *,
        clock: Clock | None = None,
        control_groups: Hierarchies | None = None,
    ) -> None:
        self._state = state.absolute()
        given = (*hidden, state)
        self._hidden = tuple({*(p.absolute() for p in given), *(p.resolve() for p in given)})
        self._clock = clock or SystemClock()
        self._records = Records(self._state)
        self._groups = ControlGroups(control_groups)
        self._locks = Locks[ProjectId]()
        self._acts: set[asyncio.Task[Any]] = set()
        self._finding = asyncio.Lock()
        self._found: tuple[sandboxes.Tools, RootKind] | None = None
        self._meter = Meter()
        self._machine = machine_environment(os.path.isfile)

    @property
    def name(self) -> str:
        """The driver's name."""
        return "bubblewrap"

    async def health(self) -> Health:
        """Return what this machine offers, or raise MissingError with what to do."""
        tools, kind = await self._find()
        version = await asyncio.to_thread(sandboxes.bubblewrap_version, tools)
        root = os.geteuid() == 0
        return Health(
            engine=self.name,
            version=version,
            detail={
                "kernel": platform.release(),
                "user": "root" if root else "ordinary",
                "user_namespace": "no: the engine runs as root" if root else "yes",
                "root": kind.words,
                "control_groups": await asyncio.to_thread(self._groups.describe),
                "network": "the host's own",
                "isolation": "for one trusted user",
            },
        )

    async def ensure(self, spec: ContainerSpec) -> ContainerInfo:
        """Return the project's container, made but not started if there is none."""
        await self._find()

        async def act() -> ContainerInfo:
            record = self._records.read(spec.project)
            if record is None:
                record = Record(id=new_id(), spec=spec)
                await asyncio.to_thread(self._make, record)
            return await asyncio.to_thread(describe, record)

        return await self._alone(spec.project, act)

    async def start(self, project: ProjectId) -> ContainerInfo:
        """Bring the container to RUNNING from STOPPED; else leave it as it is."""
        tools, kind = await self._find()

        async def act() -> ContainerInfo:
            record = self._existing(project)
            if not alive(record):
                record = await asyncio.to_thread(self._launch, tools, kind, record)
            return await asyncio.to_thread(describe, record)

        return await self._alone(project, act)

    async def stop(self, project: ProjectId, *, grace: timedelta) -> ContainerInfo:
        """Bring the container to STOPPED: TERM to its programs, *grace*, KILL."""

        async def act() -> ContainerInfo:
            before = self._existing(project)
            record = await self._end(before, grace)
            if record != before:
                await asyncio.to_thread(self._record_end, record)
                reached("bubblewrap.end_recorded")
            return describe(record)

        return await self._alone(project, act)

    async def freeze(self, project: ProjectId) -> ContainerInfo:
        """Give the container no CPU."""

        async def act() -> ContainerInfo:
            record = self._running(project)
            if state_of(record) is ContainerState.RUNNING:
                record = await asyncio.to_thread(self._freeze, record)
            return describe(record)

        return await self._alone(project, act)

    def host_pids(self, project: ProjectId) -> Sequence[int] | None:
        """See ``ShowsProcesses.host_pids``."""
        record = self._records.read(project)
        if record is None or record.first is None:
            return None
        if record.group is not None:
            return translated(record.group.pids)
        return [item.pid for item in sandbox_processes.members(record.first)]

    async def thaw(self, project: ProjectId) -> ContainerInfo:
        """Undo ``freeze``."""

        async def act() -> ContainerInfo:
            record = self._running(project)
            return describe(await asyncio.to_thread(self._thaw, record))

        return await self._alone(project, act)

    async def remove(self, project: ProjectId) -> None:
        """Kill the container and remove what was installed in it; absent is success."""

        async def act() -> None:
            record = self._records.read(project)
            if record is None:
                return
            record = await self._end(record, timedelta(0))
            # A server that died in a start has told nobody of the group that it had made.
            await asyncio.to_thread(self._groups.forget, f"project-{project}")
            await asyncio.to_thread(_remove_system, record.spec.system)
            reached("bubblewrap.system_removed")
            # Last, so that a removal that was cut short can be repeated.
            self._records.remove(project)
            reached("bubblewrap.forgotten")

        await self._alone(project, act)

    async def inspect(self, project: ProjectId) -> ContainerInfo | None:
        """Return what is known of the container, or None when there is none."""
        record = self._records.read(project)
        return None if record is None else describe(record)

    async def list(self) -> Sequence[ContainerInfo]:
        """Return all containers of this state directory."""
        return await asyncio.to_thread(self._list)

    async def open(self, project: ProjectId, command: Command) -> Stream:
        """Run *command* inside a RUNNING container and return its stream."""
        tools, _ = await self._find()
        record = self._running(project)
        if state_of(record) is ContainerState.FROZEN:
            raise ConflictError(f"container project-{project} is frozen", code="frozen")
        assert record.first is not None
        env = environment(
            record.spec.env,
            command.env,
            terminal=command.terminal is not None,
            machine=self._machine,
        )
        joins = () if record.group is None else record.group.joins
        return await opened(
            asyncio.to_thread(translated, sandboxes.enter, tools, record.first, joins, command, env)
        )

    async def stats(self, project: ProjectId) -> Stats | None:
        """Return what the container uses, or None while it is stopped."""
        record = self._existing(project)
        if not alive(record):
            return None
        return await asyncio.to_thread(self._stats, record)

    async def close(self) -> None:
        """Wait for what is under way; containers go on."""
        while self._acts:
            await asyncio.wait(self._acts)

    # -- what is done in turn --------------------------------------------------------------------

    async def _alone(self, project: ProjectId, act: Callable[[], Awaitable[T]]) -> T:
        """Run *act* with the container to itself, to its end even if the caller goes away."""

        async def run() -> T:
            async with self._locks.of(project), self._records.lock(project):
                return await act()

        return await asyncio.shield(self._keep(run()))

    def _keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._acts.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._acts.discard(task)
        if not task.cancelled():
            task.exception()  # seen, also when the caller has gone away

    async def _find(self) -> tuple[sandboxes.Tools, RootKind]:
        async with self._finding:
            if self._found is None:
                tools = await asyncio.to_thread(sandboxes.find_tools)
                kind = await asyncio.to_thread(translated, find_kind, tools, self._state)
                self._found = tools, kind
            return self._found

    def _existing(self, project: ProjectId) -> Record:
        record = self._records.read(project)
        if record is None:
            raise NotFoundError(f"there is no container project-{project}", code="container_absent")
        return record

    def _running(self, project: ProjectId) -> Record:
        record = self._existing(project)
        if not alive(record):
            raise ConflictError(f"container project-{project} is not running", code="not_running")
        return record

    def _make(self, record: Record) -> None:
        system = record.spec.system
        there = system.exists()
        try:
            system.mkdir(parents=True, exist_ok=True)
            self._records.write(record)
            reached("bubblewrap.recorded")
        except OSError as error:
            self._records.remove(record.spec.project)
            if not there:
                remove_tree(system)
            raise EngineFailedError(
                f"the container's directory cannot be made: {error}", code="create_failed"
            ) from error

    def _launch(self, tools: sandboxes.Tools, kind: RootKind, record: Record) -> Record:
        group = translated(self._groups.make, f"project-{record.spec.project}", record.spec.limits)
        reached("bubblewrap.group_made")
        started = record

        def write(first: Identity) -> None:
            nonlocal started
            started = replace(
                record,
                first=first,
                group_version=None if group is None else group.version,
                groups={} if group is None else group.directories,
                suspended=False,
                started_at=self._clock.now(),
                exit_code=None,
            )
            self._records.write(started)
            reached("bubblewrap.first_recorded")

        try:
            plan = translated(make_plan, record.spec, kind, self._hidden)
            joins = () if group is None else group.joins
            translated(sandboxes.launch, tools, plan, joins, write)
            reached("bubblewrap.launched")
        except BaseException:
            if group is not None:
                group.remove()
            raise
        return started

    async def _end(self, record: Record, grace: timedelta) -> Record:
        """End what runs, and return what is then to be recorded."""
        code = record.exit_code
        if alive(record):
            assert record.first is not None
            await asyncio.to_thread(wake, record)
            code = await end(record.first, grace, self._clock)
            reached("bubblewrap.ended")
            self._meter.forget(record.first)
        if record.group is not None:
            await asyncio.to_thread(record.group.remove)
            reached("bubblewrap.group_removed")
        if record.first is not None and code is None:
            code = KILLED
        return replace(
            record, first=None, group_version=None, groups={}, suspended=False, exit_code=code
        )

    def _record_end(self, record: Record) -> None:
        try:
            self._records.write(record)
        except OSError as error:
            # A full disk keeps nothing from being stopped: the record that is there names a first
            # process that is over, which says the same.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise EngineFailedError(f"the stop cannot be recorded: {error}") from error

    def _freeze(self, record: Record) -> Record:
        if record.group is not None:
            translated(record.group.freeze)
            return record
        assert record.first is not None
        first = record.first
        # Recorded first: a server that dies in between leaves one that can be thawed.
        record = replace(record, suspended=True)
        translated(self._records.write, record)
        if not sandbox_processes.suspend(first):
            self._thaw(record)
            raise EngineFailedError(
                "the container's processes could not be stopped: new ones come too fast",
                code="freeze_failed",
            )
        return record

    def _thaw(self, record: Record) -> Record:
        wake(record)
        if record.suspended:
            record = replace(record, suspended=False)
            translated(self._records.write, record)
        return record

    def _list(self) -> Sequence[ContainerInfo]:
        found = []
        for project in self._records.projects():
            record = self._records.read(project)
            if record is not None:
                found.append(describe(record))
        return found

    def _stats(self, record: Record) -> Stats:
        assert record.first is not None
        group = record.group
        if group is None:
            return self._meter.measure(record.first)
        if group.counts:
            return group.stats()
        counted, seen = group.stats(), self._meter.measure(record.first)
        return replace(seen, cpu_seconds=max(seen.cpu_seconds, counted.cpu_seconds))


def _remove_system(system: Path) -> None:
    try:
        remove_tree(system)
    except OSError as error:
        raise EngineFailedError(
            f"what was installed in the container cannot be removed: {error}",
            code="remove_failed",
            hint=f"Look at {system}; the removal can be repeated.",
        ) from error
