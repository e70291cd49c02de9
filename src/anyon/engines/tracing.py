"""The wrapper that makes what an engine does a part of the trace it is done in."""

from collections.abc import Sequence
from datetime import timedelta

from anyon.domain.ids import ProjectId
from anyon.engines.engine import (
    Command,
    ContainerInfo,
    ContainerSpec,
    Engine,
    Health,
    Stats,
    Stream,
)
from anyon.telemetry.traces import span


class TracedEngine:
    """Keeps all promises of the engine that it wraps; each call is a span where one is traced."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def name(self) -> str:
        """The driver's name."""
        return self._engine.name

    async def health(self) -> Health:
        """Return what the engine says of itself."""
        return await self._engine.health()

    async def ensure(self, spec: ContainerSpec) -> ContainerInfo:
        """Return the project's container, made if it is not there."""
        with span("engine.ensure", project=spec.project):
            return await self._engine.ensure(spec)

    async def start(self, project: ProjectId) -> ContainerInfo:
        """Start it."""
        with span("engine.start", project=project):
            return await self._engine.start(project)

    async def stop(self, project: ProjectId, *, grace: timedelta) -> ContainerInfo:
        """Stop it."""
        with span("engine.stop", project=project):
            return await self._engine.stop(project, grace=grace)

    async def freeze(self, project: ProjectId) -> ContainerInfo:
        """Freeze it."""
        with span("engine.freeze", project=project):
            return await self._engine.freeze(project)

    async def thaw(self, project: ProjectId) -> ContainerInfo:
        """Thaw it."""
        with span("engine.thaw", project=project):
            return await self._engine.thaw(project)

    async def remove(self, project: ProjectId) -> None:
        """Remove it."""
        with span("engine.remove", project=project):
            await self._engine.remove(project)

    async def inspect(self, project: ProjectId) -> ContainerInfo | None:
        """Return what is known of it."""
        with span("engine.inspect", project=project):
            return await self._engine.inspect(project)

    async def list(self) -> Sequence[ContainerInfo]:
        """Return all containers."""
        with span("engine.list"):
            return await self._engine.list()

    async def open(self, project: ProjectId, command: Command) -> Stream:
        """Run a command inside."""
        with span("engine.open", project=project):
            return await self._engine.open(project, command)

    async def stats(self, project: ProjectId) -> Stats | None:
        """Return what it uses."""
        return await self._engine.stats(project)

    async def close(self) -> None:
        """Let go of connections."""
        await self._engine.close()
