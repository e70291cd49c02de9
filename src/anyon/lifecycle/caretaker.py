"""The loops that look after the store: collection of what nothing needs, and proofs of restores."""

from collections.abc import Container, Sequence
from datetime import datetime, timedelta

import structlog

from anyon.clock import Clock
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain import proofs
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError
from anyon.domain.ids import ProjectId
from anyon.services.archives import Archives, is_lost
from anyon.services.upkeep import Upkeep

log = structlog.get_logger(__name__)
AT_LEAST = timedelta(hours=24)
"""How often what was not saved is collected too: its old checkpoints age all the same."""


class Caretaker:
    """Looks after the projects that this server has, one after the other; what fails waits for the next round."""

    def __init__(
        self,
        *,
        db: Database,
        archives: Archives,
        upkeep: Upkeep,
        clock: Clock,
        server_id: str,
        drill_hour: int,
        drill_projects: int,
    ) -> None:
        self._db = db
        self._archives = archives
        self._upkeep = upkeep
        self._clock = clock
        self._server_id = server_id
        self._hour = drill_hour
        self._most = drill_projects
        self._collected_at: dict[ProjectId, datetime] = {}
        self._passed_at: dict[ProjectId, datetime] = {}
        """Of projects with nothing to prove (yet): they wait for another night."""
        self._began_at = clock.now()

    async def collect(self) -> None:
        """Collect every project that was saved since its last collection, and each once a day."""
        mine = await self._mine()
        self._forget_all_but({project.id for project in mine})
        for project in mine:
            if not self._is_collectable(project):
                continue
            now = self._clock.now()
            try:
                await self._upkeep.collect(project)
            except AnyonError as error:
                log.warning("store.collection_failed", project=project.id, code=error.code)
                continue
            self._collected_at[project.id] = now

    async def prove(self) -> None:
        """Restore some projects for proof, if this night's round is due."""
        projects = await self._mine()
        tried_at = await self._upkeep.drilled_at()
        made = [(project.id, project.created_at) for project in projects]
        found = {project.id: project for project in projects}
        now = self._clock.now()
        tried_at = {**tried_at, **self._passed_at}
        for one in proofs.chosen(made, tried_at, now=now, hour=self._hour, most=self._most):
            try:
                outcome = await self._upkeep.drill(found[one])
            except AnyonError as error:
                log.warning("restore.drill_failed", project=one, code=error.code)
                continue
            if outcome.skipped:
                self._passed_at[one] = now

    def _is_collectable(self, project: Project) -> bool:
        # A server that has just begun has better things to do than to list the whole store.
        collected = self._collected_at.get(project.id, self._began_at)
        saved = self._archives.saved_at.get(project.id)
        is_old = self._clock.now() - collected >= AT_LEAST
        return is_old or (saved is not None and saved > collected)

    def _forget_all_but(self, mine: Container[ProjectId]) -> None:
        for known in (self._collected_at, self._passed_at):
            for gone in [one for one in known if one not in mine]:
                del known[gone]

    async def _mine(self) -> Sequence[Project]:
        projects = await self._db.read(project_rows.of_server, self._server_id)
        return [one for one in projects if one.deleted_at is None and not is_lost(one)]
