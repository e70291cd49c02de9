"""Use cases, one module per noun; the API and the loops call these and nothing below them."""

from dataclasses import dataclass

from anyon.services.attempts import Attempts
from anyon.services.containers import Containers
from anyon.services.feed import Feed
from anyon.services.processes import ProcessRuns
from anyon.services.projects import Projects
from anyon.services.tasks import Tasks
from anyon.services.tokens import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All use cases, wired together."""

    projects: Projects
    tasks: Tasks
    attempts: Attempts
    processes: ProcessRuns
    containers: Containers
    tokens: Tokens
    feed: Feed

    async def recover(self) -> None:
        """Take up what an earlier server left: undo half-made projects, adopt processes, go on with chains."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop following processes (they go on) and end the feed; the database stays open."""
        raise NotImplementedError
