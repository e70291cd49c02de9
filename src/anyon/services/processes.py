"""Use cases on processes: run a command, read and follow output, read an agent's conversation, kill."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta

from anyon.agents.agent import Patch
from anyon.domain.actors import Actor
from anyon.domain.entities import Process
from anyon.domain.ids import ProcessId, ProjectId
from anyon.engines.engine import Channel
from anyon.processes.processes import Chunk


class ProcessRuns:
    """What users do with processes. A foreign or unknown id is NotFoundError (``process_unknown``)."""

    async def get(self, actor: Actor, process_id: ProcessId) -> Process:
        """Return one process."""
        raise NotImplementedError

    async def list(self, actor: Actor, project_id: ProjectId) -> Sequence[Process]:
        """Return all processes of a project, oldest first."""
        raise NotImplementedError

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

        ``cwd`` is relative to ``/workspace`` or absolute inside.
        """
        raise NotImplementedError

    async def output(
        self, actor: Actor, process_id: ProcessId, channel: Channel, offset: int, limit: int
    ) -> Chunk:
        """Return up to *limit* bytes of one output from *offset* on, at once; never wakes."""
        raise NotImplementedError

    def follow(
        self, actor: Actor, process_id: ProcessId, offsets: Mapping[Channel, int] | None = None
    ) -> AsyncIterator[Chunk]:
        """Yield output from *offsets* on, as it comes, and end after the exit; never wakes."""
        raise NotImplementedError

    def conversation(self, actor: Actor, process_id: ProcessId) -> AsyncIterator[Sequence[Patch]]:
        """Yield an agent's conversation from its beginning, as it grows, and end after the exit.

        ConflictError (``not_an_agent``) for any other process.
        """
        raise NotImplementedError

    async def kill(self, actor: Actor, process_id: ProcessId) -> Process:
        """End the whole tree and return the process as it then stands; the output stays."""
        raise NotImplementedError
