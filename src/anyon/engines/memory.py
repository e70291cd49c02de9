"""An engine whose facts are in memory: for tests, quick enough for millions of steps.

Nothing is started until a program is opened; then the container gets a plain sandbox without
layers over the host's system (what is installed goes to ``/opt``). It keeps every promise of an
engine but one: it forgets all when it is closed, and its sandboxes end with it or its process.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from anyon.clock import Clock, SystemClock
from anyon.domain.errors import ConflictError, EngineFailedError, NotFoundError
from anyon.domain.ids import ProjectId, new_id
from anyon.engines import sandbox_processes, sandboxes
from anyon.engines.engine import (
    Command,
    ContainerInfo,
    ContainerSpec,
    ContainerState,
    Health,
    Stats,
    Stream,
)
from anyon.engines.sandbox_ends import KILLED, TERMINATED, Meter, end, kill
from anyon.engines.sandbox_plans import environment
from anyon.engines.sandbox_processes import Identity
from anyon.engines.sandbox_roots import RootKind, make_plan
from anyon.engines.sandbox_streams import opened
from anyon.engines.sandbox_trees import remove_tree

_PLAIN = RootKind(whole=False, parts=(), reason="the memory engine has no layers")


@dataclass(slots=True)
class _Container:
    spec: ContainerSpec
    id: str = field(default_factory=new_id)
    state: ContainerState = ContainerState.STOPPED
    started_at: datetime | None = None
    exit_code: int | None = None
    first: Identity | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class MemoryEngine:
    """Containers that are facts until a program is opened in one. *hidden* as for bubblewrap."""

    def __init__(self, hidden: Sequence[Path] = (), *, clock: Clock | None = None) -> None:
        self._hidden = tuple(hidden)
        self._clock = clock or SystemClock()
        self._containers: dict[ProjectId, _Container] = {}
        self._lifeline: tuple[int, int] | None = None
        self._tools: sandboxes.Tools | None = None
        self._meter = Meter()

    @property
    def name(self) -> str:
        """The driver's name."""
        return "memory"

    async def health(self) -> Health:
        """Return that it is there."""
        return Health(engine=self.name, version="1", detail={"isolation": "none to rely on"})

    async def ensure(self, spec: ContainerSpec) -> ContainerInfo:
        """Return the project's container, made if it is not there."""
        return _info(self._containers.setdefault(spec.project, _Container(spec)))

    async def start(self, project: ProjectId) -> ContainerInfo:
        """Bring it to RUNNING from STOPPED."""
        async with self._alone(project) as container:
            if container.state is ContainerState.STOPPED:
                container.state = ContainerState.RUNNING
                container.started_at = self._clock.now()
                container.exit_code = None
            return _info(container)

    async def stop(self, project: ProjectId, *, grace: timedelta) -> ContainerInfo:
        """Bring it to STOPPED, ending what runs in it."""
        async with self._alone(project) as container:
            await self._end(container, grace)
            return _info(container)

    async def freeze(self, project: ProjectId) -> ContainerInfo:
        """Stop its processes by signals."""
        async with self._alone(project) as container:
            _must_run(container)
            if container.first is not None:
                await self._suspend(container.first)
            container.state = ContainerState.FROZEN
            return _info(container)

    async def thaw(self, project: ProjectId) -> ContainerInfo:
        """Undo ``freeze``."""
        async with self._alone(project) as container:
            _must_run(container)
            self._thaw(container)
            return _info(container)

    async def remove(self, project: ProjectId) -> None:
        """Forget it, and what was installed in it."""
        with contextlib.suppress(NotFoundError):
            async with self._alone(project) as container:
                await self._end(container, timedelta(0))
                if container.spec.system.exists():
                    await asyncio.to_thread(remove_tree, container.spec.system)
                del self._containers[project]

    async def inspect(self, project: ProjectId) -> ContainerInfo | None:
        """Return what is known of it."""
        container = self._containers.get(project)
        return None if container is None else _info(container)

    async def list(self) -> Sequence[ContainerInfo]:
        """Return all containers."""
        return [_info(container) for container in self._containers.values()]

    async def open(self, project: ProjectId, command: Command) -> Stream:
        """Run *command* in the container's sandbox, which is started now if this is the first."""
        async with self._alone(project) as container:
            _must_run(container)
            if container.state is ContainerState.FROZEN:
                raise ConflictError(f"container project-{project} is frozen", code="frozen")
            if self._tools is None:
                self._tools = await asyncio.to_thread(sandboxes.find_tools)
            tools = self._tools
            if container.first is None:
                container.first = await asyncio.to_thread(self._launch, tools, container)
            first: Identity = container.first
            env = environment(
                container.spec.env,
                command.env,
                terminal=command.terminal is not None,
                machine={},
            )
            entering = asyncio.to_thread(sandboxes.enter, tools, first, (), command, env)
            return await opened(entering)

    async def stats(self, project: ProjectId) -> Stats | None:
        """Return what its sandbox uses, nothing at all while it has none."""
        container = self._existing(project)
        if container.state is ContainerState.STOPPED:
            return None
        if container.first is None:
            return Stats(cpu_seconds=0.0, memory_bytes=0, pids=0)
        return await asyncio.to_thread(self._meter.measure, container.first)

    async def close(self) -> None:
        """Kill every sandbox and forget everything."""
        for container in self._containers.values():
            if container.first is not None:
                # A frozen helper outside would never reap its child inside, whose end is waited for.
                self._thaw(container)
                await asyncio.to_thread(kill, container.first)
        self._containers.clear()
        for descriptor in self._lifeline or ():
            os.close(descriptor)
        self._lifeline = None

    def _existing(self, project: ProjectId) -> _Container:
        try:
            return self._containers[project]
        except KeyError:
            raise NotFoundError(
                f"there is no container project-{project}", code="container_absent"
            ) from None

    @contextlib.asynccontextmanager
    async def _alone(self, project: ProjectId) -> AsyncIterator[_Container]:
        container = self._existing(project)
        async with container.lock:
            if self._containers.get(project) is not container:  # removed while this one waited
                container = self._existing(project)
            if container.first is not None and not sandbox_processes.lives(container.first):
                # Killed from outside, or by a stop whose caller went away.
                container.first = None
                container.state = ContainerState.STOPPED
                container.exit_code = KILLED
            yield container

    def _launch(self, tools: sandboxes.Tools, container: _Container) -> Identity:
        if self._lifeline is None:
            self._lifeline = os.pipe()
        plan = make_plan(container.spec, _PLAIN, self._hidden)
        return sandboxes.launch(tools, plan, (), lambda _: None, lifeline=self._lifeline[0])

    async def _end(self, container: _Container, grace: timedelta) -> None:
        if container.state is ContainerState.STOPPED:
            return
        self._thaw(container)
        container.exit_code = TERMINATED if grace else KILLED
        if container.first is not None:
            container.exit_code = await end(container.first, grace, self._clock)
            self._meter.forget(container.first)
        container.first = None
        container.state = ContainerState.STOPPED

    async def _suspend(self, first: Identity) -> None:
        if not await asyncio.to_thread(sandbox_processes.suspend, first):
            sandbox_processes.resume(first)
            raise EngineFailedError(
                "the container's processes could not be stopped: new ones come too fast",
                code="freeze_failed",
            )

    def _thaw(self, container: _Container) -> None:
        if container.state is ContainerState.FROZEN and container.first is not None:
            sandbox_processes.resume(container.first)
        container.state = ContainerState.RUNNING


def _must_run(container: _Container) -> None:
    if container.state is ContainerState.STOPPED:
        raise ConflictError(
            f"container project-{container.spec.project} is not running", code="not_running"
        )


def _info(container: _Container) -> ContainerInfo:
    spec = container.spec
    return ContainerInfo(
        project=spec.project,
        id=container.id,
        name=f"project-{spec.project}",
        state=container.state,
        pid=None if container.first is None else container.first.pid,
        started_at=container.started_at,
        exit_code=container.exit_code,
        labels={**spec.labels, "anyon.project": spec.project},
    )
