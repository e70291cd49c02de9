"""Use cases on checkpoints: take one and check one here; looking, going back, forking beside it."""

from dataclasses import dataclass

from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.actors import Actor
from anyon.domain.entities import Project
from anyon.domain.errors import NotFoundError
from anyon.domain.ids import ProjectId
from anyon.services.activities import Activities
from anyon.services.archives import Archives, place
from anyon.services.forks import Forks
from anyon.services.histories import Histories
from anyon.services.restores import Restores
from anyon.services.upkeep import Upkeep
from anyon.storage.records import Checkpoint
from anyon.storage.verifying import Verified


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectCheckpoints:
    """What users do with checkpoints. A foreign or unknown project is NotFoundError (``project_unknown``)."""

    archives: Archives
    db: Database
    activities: Activities
    history: Histories
    restores: Restores
    forks: Forks
    upkeep: Upkeep

    async def take(self, actor: Actor, project_id: ProjectId) -> Checkpoint:
        """Save the project now, whether it runs or not, and return its checkpoint.

        ConflictError (``project_archived``) where there are no local files: they are saved already.
        """
        project = await self._found(actor, project_id)
        with self.activities.begun(project_id, "save"):
            return await self.archives.save(project, reason="asked")

    async def verify(
        self, actor: Actor, project_id: ProjectId, checkpoint_id: str, *, read_data: bool
    ) -> Verified:
        """Check a checkpoint where it lies, its structure or every byte of it; never wakes the project."""
        project = await self._found(actor, project_id)
        with self.activities.begun(project_id, "verify") as activity:
            return await self.archives.checkpoints.verify(
                place(project), checkpoint_id, read_data=read_data, progress=activity.progress
            )

    async def _found(self, actor: Actor, project_id: ProjectId) -> Project:
        project = await self.db.read(project_rows.get, actor.user_id, project_id)
        if project is None:
            raise NotFoundError("there is no such project", code="project_unknown")
        return project
