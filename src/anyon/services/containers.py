"""A project's container: made, awake while something holds it, opened for a terminal."""

from contextlib import AbstractAsyncContextManager

from anyon.domain.actors import Actor
from anyon.domain.entities import Lease, Project
from anyon.domain.ids import ProjectId
from anyon.engines.engine import Command, ContainerInfo, Stream


class Containers:
    """Keeps one container for each project, awake while something holds it."""

    def awake(
        self, project: Project, *, holder: str, reason: str, counts: bool = True
    ) -> AbstractAsyncContextManager[Lease]:
        """Hold the project's container RUNNING inside the block.

        However many callers, one start. A lease in the database (with heartbeat) says who holds
        and why. ``counts`` says whether this is activity (a look is not).
        """
        raise NotImplementedError

    async def ensure(self, project: Project) -> ContainerInfo:
        """Bring the container to RUNNING, from whatever state, and record the phase."""
        raise NotImplementedError

    async def open_shell(self, actor: Actor, project_id: ProjectId, command: Command) -> Stream:
        """Open *command* (with a terminal, usually) inside; the lease lasts until the stream closes."""
        raise NotImplementedError
