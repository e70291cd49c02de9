"""The loop that saves projects in which something happens, so that little is lost with a machine."""

import structlog

from anyon.clock import Clock
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError
from anyon.domain.ids import ProjectId
from anyon.domain.states import Phase
from anyon.services.archives import Archives
from anyon.services.homes import Homes
from anyon.services.leases import Leases

log = structlog.get_logger(__name__)


class Checkpointer:
    """Saves awake projects that were active since their last save, one after the other.

    A save that fails is logged and tried again at the next tick; the former checkpoint stays.
    """

    def __init__(
        self, *, db: Database, archives: Archives, leases: Leases, homes: Homes, clock: Clock
    ) -> None:
        self._db = db
        self._archives = archives
        self._leases = leases
        self._homes = homes
        self._clock = clock
        self._saved_steady: dict[ProjectId, float] = {}

    async def tick(self) -> None:
        """Save every project that needs it once."""
        projects = await self._db.read(project_rows.living)
        held = {lease.project_id for lease in await self._leases.all_held()}
        for project in projects:
            # What lies on a mounted bucket is saved at stops only: it is in the bucket already.
            is_here = project.phase in {Phase.RUNNING, Phase.FROZEN}
            if (is_here and not self._homes.is_mounted(project)) and (
                project.id in held or self._was_active_since(project)
            ):
                await self._save(project)
        living = {project.id for project in projects}
        self._saved_steady = {k: v for k, v in self._saved_steady.items() if k in living}

    def _was_active_since(self, project: Project) -> bool:
        saved = self._saved_steady.get(project.id)
        if saved is None:
            return True
        idle = (self._clock.now() - project.last_active_at).total_seconds()
        return idle < self._clock.monotonic() - saved

    async def _save(self, project: Project) -> None:
        began = self._clock.monotonic()
        try:
            await self._archives.save(project, reason="interval")
        except AnyonError as error:
            log.warning("project.save_failed", project=project.id, code=error.code)
            return
        self._saved_steady[project.id] = began
