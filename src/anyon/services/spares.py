"""Spare worktrees: after each start the next one's is made, so that no start waits for its files."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import structlog

from anyon.clock import Clock
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError
from anyon.domain.ids import ProjectId
from anyon.git.repository import Repositories
from anyon.services.containers import Containers
from anyon.services.leases import SPARE
from anyon.services.supervisors import Supervisor

log = structlog.get_logger(__name__)
PAUSE = timedelta(milliseconds=150)
"""How long what has just been started has the machine for itself."""
PATIENCE = timedelta(seconds=30)
"""How long a start waits for a spare that is being written."""
BELIEFS = 1000
"""Of how many projects, those that were started in last, it is believed what they have checked out."""


class Spares:
    """Has a spare worktree made in the background, one at a time a project.

    It is only ever a shortcut: a start that finds none, or one that is not as it was made, makes
    its worktree itself; so a failure here is told to the log and to nobody else.
    """

    def __init__(
        self,
        *,
        containers: Containers,
        repositories: Repositories,
        clock: Clock,
        supervisor: Supervisor,
    ) -> None:
        self._containers = containers
        self._repositories = repositories
        self._clock = clock
        self._supervisor = supervisor
        self._bases: dict[ProjectId, str] = {}
        self._looks: dict[ProjectId, asyncio.Task[str]] = {}
        self._awaited: set[ProjectId] = set()
        self._made: dict[ProjectId, asyncio.Event] = {}

    async def base(self, project: Project) -> str:
        """Return what the workspace had checked out at the last start; it may be another by now.

        Where none is known it is looked up inside, once for all who ask meanwhile.
        """
        known = self._bases.get(project.id)
        if known is not None:
            return known
        look = self._looks.get(project.id)
        if look is None:
            look = self._supervisor.spawn(self._look(project), name=f"branch of {project.id}")
            self._looks[project.id] = look
            look.add_done_callback(lambda _: self._looks.pop(project.id, None))
        return await asyncio.shield(look)

    async def _look(self, project: Project) -> str:
        async with self._containers.awake(project, holder=project.id, reason="branch"):
            base = await self._repositories.of(project.id).current_branch()
        self.learn_base(project.id, base)
        return base

    def learn_base(self, project: ProjectId, base: str) -> None:
        """Note what the workspace has checked out."""
        self._bases.pop(project, None)
        self._bases[project] = base
        while len(self._bases) > BELIEFS:
            del self._bases[next(iter(self._bases))]

    def make_next(self, project: Project, base: str, *, after: asyncio.Event) -> None:
        """Have a spare at *base* made soon, once *after* is set."""
        if project.id not in self._awaited:
            self._awaited.add(project.id)
            self._supervisor.spawn(self._make(project, base, after), name=f"spare of {project.id}")

    async def settled(self, project: ProjectId) -> None:
        """Return once no spare is being written: to wait for one takes no longer than to write another.

        Not for ever: one that hangs (in a filter, say) is left to itself.
        """
        if (made := self._made.get(project)) is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE.total_seconds()):
                    await made.wait()

    async def _make(self, project: Project, base: str, after: asyncio.Event) -> None:
        try:
            await after.wait()
            await self._clock.sleep(PAUSE)
            guard = self._containers.guarded(project.id, holder=SPARE, reason="spare")
            async with guard as is_running:
                if is_running:
                    self._made[project.id] = asyncio.Event()
                    await self._repositories.of(project.id).prepare_spare(base)
        except AnyonError as error:
            log.info("spare.not_made", project=project.id, code=error.code, error=str(error))
        finally:
            self._awaited.discard(project.id)
            if (made := self._made.pop(project.id, None)) is not None:
                made.set()
