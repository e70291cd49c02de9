"""An engine whose containers can be held still for a moment, without anybody else noticing.

Whoever asks something of a container meanwhile waits; so nothing is opened in a container that
gets no CPU, and no stop, start or thaw comes between.
"""

import asyncio
import dataclasses
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import structlog

from anyon.domain.errors import AnyonError, UnavailableError
from anyon.domain.ids import ProjectId
from anyon.engines.engine import (
    Command,
    ContainerInfo,
    ContainerSpec,
    ContainerState,
    Engine,
    Health,
    ShowsProcesses,
    Stats,
    Stream,
)
from anyon.urgency import urgent

log = structlog.get_logger(__name__)
LONGEST = timedelta(seconds=5)
"""No pause lasts longer, whatever it is for."""
PATIENCE = timedelta(seconds=10)
"""How long a pause waits for what others are doing with the container."""


class PauseFailedError(UnavailableError):
    """A container could not be held still, or not for as long as it took; it runs on."""

    default_code = "pause_failed"


@dataclass(frozen=True, slots=True)
class Still:
    """A container that is held; ``since`` is by ``time.monotonic``, from before it was asked for."""

    since: float
    pids: Callable[[], Sequence[int] | None]
    """All its processes as this machine numbers them, or None; blocks shortly."""


class _Gate:
    """Any number of callers, or one pause; a pause that waits keeps new callers out."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._inside = 0
        self._is_shut = False
        self.is_still = False
        self.was_cut = False

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._is_shut)
            self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            await asyncio.shield(self._tell())

    async def shut(self) -> None:
        """Return once nobody is inside; PauseFailedError if that takes too long."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._is_shut)
            self._is_shut = True
            try:
                async with asyncio.timeout(PATIENCE.total_seconds()):
                    await self._changed.wait_for(lambda: not self._inside)
            except BaseException as error:
                self._is_shut = False
                self._changed.notify_all()
                if isinstance(error, TimeoutError):
                    raise PauseFailedError("the container is busy", code="pause_busy") from error
                raise

    async def open(self) -> None:
        self._is_shut = False
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class PausingEngine:
    """Keeps all promises of the engine that it wraps, and can ``pause``."""

    def __init__(self, engine: Engine, *, longest: timedelta = LONGEST) -> None:
        self._engine = engine
        self._longest = longest
        # Each for as long as somebody is at it: a project that is gone leaves none behind.
        self._gates: weakref.WeakValueDictionary[ProjectId, _Gate] = weakref.WeakValueDictionary()

    def _gate(self, project: ProjectId) -> _Gate:
        return self._gates.setdefault(project, _Gate())

    @asynccontextmanager
    async def pause(self, project: ProjectId) -> AsyncIterator[Still]:
        """Let nothing of the project run inside the block; a container that does not run is left so.

        PauseFailedError if it cannot be held, or, at the block's end, if it was let go before it.
        """
        gate = self._gate(project)
        await gate.shut()
        watch: asyncio.Task[None] | None = None
        since = time.monotonic()
        try:
            info = await self._engine.inspect(project)
            with urgent():  # this thread has a part in the freeze and in the thaw
                try:
                    if info is not None and info.state is ContainerState.RUNNING:
                        gate.is_still, gate.was_cut = True, False
                        name = f"pause {project}"
                        watch = asyncio.create_task(self._let_go(project, gate), name=name)
                        since = time.monotonic()
                        await self._freeze(project)
                    yield Still(since, partial(self._pids, project, info))
                    if watch is not None and gate.was_cut:
                        raise PauseFailedError("the pause took too long", code="pause_too_long")
                finally:
                    if watch is not None:
                        watch.cancel()
                        await asyncio.gather(watch, return_exceptions=True)
                        await asyncio.shield(self._thaw(project))
        finally:
            gate.is_still = False
            await asyncio.shield(gate.open())

    def _pids(self, project: ProjectId, info: ContainerInfo | None) -> Sequence[int] | None:
        if info is None or info.state is ContainerState.STOPPED:
            return ()
        if isinstance(self._engine, ShowsProcesses):
            return self._engine.host_pids(project)
        return None

    async def _let_go(self, project: ProjectId, gate: _Gate) -> None:
        await asyncio.sleep(self._longest.total_seconds())
        gate.was_cut = True
        await self._thaw(project)

    async def _freeze(self, project: ProjectId) -> None:
        try:
            await self._engine.freeze(project)
        except AnyonError as error:
            raise PauseFailedError(f"the container cannot be frozen: {error.message}") from error

    async def _thaw(self, project: ProjectId) -> None:
        try:
            await self._engine.thaw(project)
        except AnyonError as error:  # gone, or ended: there is nothing left that stands still
            log.warning("container.thaw_failed", project=project, code=error.code)

    def _seen(self, info: ContainerInfo) -> ContainerInfo:
        """Return what others see: a container that stands still for a moment runs."""
        gate = self._gates.get(info.project)
        if gate is not None and gate.is_still and info.state is ContainerState.FROZEN:
            return dataclasses.replace(info, state=ContainerState.RUNNING)
        return info

    @property
    def name(self) -> str:
        """The driver's name."""
        return self._engine.name

    async def health(self) -> Health:
        """Return what the engine says of itself."""
        return await self._engine.health()

    async def ensure(self, spec: ContainerSpec) -> ContainerInfo:
        """Return the project's container, made if it is not there."""
        async with self._gate(spec.project).passing():
            return await self._engine.ensure(spec)

    async def start(self, project: ProjectId) -> ContainerInfo:
        """Start it."""
        async with self._gate(project).passing():
            return await self._engine.start(project)

    async def stop(self, project: ProjectId, *, grace: timedelta) -> ContainerInfo:
        """Stop it."""
        async with self._gate(project).passing():
            return await self._engine.stop(project, grace=grace)

    async def freeze(self, project: ProjectId) -> ContainerInfo:
        """Freeze it."""
        async with self._gate(project).passing():
            return await self._engine.freeze(project)

    async def thaw(self, project: ProjectId) -> ContainerInfo:
        """Thaw it."""
        async with self._gate(project).passing():
            return await self._engine.thaw(project)

    async def remove(self, project: ProjectId) -> None:
        """Remove it."""
        async with self._gate(project).passing():
            await self._engine.remove(project)

    async def inspect(self, project: ProjectId) -> ContainerInfo | None:
        """Return what is known of it."""
        info = await self._engine.inspect(project)
        return None if info is None else self._seen(info)

    async def list(self) -> Sequence[ContainerInfo]:
        """Return all containers."""
        return [self._seen(info) for info in await self._engine.list()]

    async def open(self, project: ProjectId, command: Command) -> Stream:
        """Run a command inside."""
        async with self._gate(project).passing():
            return await self._engine.open(project, command)

    async def stats(self, project: ProjectId) -> Stats | None:
        """Return what it uses."""
        return await self._engine.stats(project)

    async def close(self) -> None:
        """Let go of connections."""
        await self._engine.close()
