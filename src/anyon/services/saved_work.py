"""Work that a cleanup would have dropped: what there is of it, and bringing it back as a branch."""

from collections.abc import Sequence

from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.actors import Actor
from anyon.domain.entities import Project
from anyon.domain.errors import NotFoundError
from anyon.domain.ids import ProjectId, new_id
from anyon.git.repository import Repositories, SavedWork
from anyon.services.containers import Containers
from anyon.services.views import Views


class SavedWorks:
    """Lists and restores saved work. An unknown or foreign project is ``project_unknown``."""

    def __init__(
        self, *, db: Database, containers: Containers, repositories: Repositories, views: Views
    ) -> None:
        self._db = db
        self._containers = containers
        self._repositories = repositories
        self._views = views

    async def list(self, actor: Actor, project_id: ProjectId) -> Sequence[SavedWork]:
        """Return what cleanups have saved, newest first; wakes nothing."""
        return await self._views.saved_work(await self._found(actor, project_id))

    async def restore(self, actor: Actor, project_id: ProjectId, ref: str, branch: str) -> None:
        """Make *branch* at a saved ref; the saved work stays.

        InvalidInputError ``bad_ref_name``, NotFoundError ``commit_unknown``, ConflictError
        ``branch_exists``.
        """
        project = await self._found(actor, project_id)
        holder = f"restore {new_id()}"
        async with self._containers.awake(project, holder=holder, reason="restore"):
            await self._repositories.of(project_id).restore_saved(ref, branch)

    async def _found(self, actor: Actor, project_id: ProjectId) -> Project:
        project = await self._db.read(project_rows.get, actor.user_id, project_id)
        if project is None:
            raise NotFoundError("there is no such project", code="project_unknown")
        return project
