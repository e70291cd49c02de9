"""Use cases on checkpoints: take one, list them, go back to one."""

from collections.abc import Sequence
from datetime import timedelta

from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.actors import Actor
from anyon.domain.entities import Project
from anyon.domain.errors import ConflictError, NotFoundError
from anyon.domain.ids import ProjectId
from anyon.domain.states import ExitReason, Phase
from anyon.engines.engine import Engine
from anyon.failpoints import reached
from anyon.processes.processes import Processes
from anyon.services.archives import Archives
from anyon.services.containers import Containers
from anyon.services.leases import Leases
from anyon.storage.records import Checkpoint
from anyon.storage.verifying import Verified


class ProjectCheckpoints:
    """What users do with checkpoints. A foreign or unknown project is NotFoundError (``project_unknown``)."""

    def __init__(
        self,
        *,
        archives: Archives,
        db: Database,
        engine: Engine,
        processes: Processes,
        containers: Containers,
        leases: Leases,
        grace: timedelta,
    ) -> None:
        self._archives = archives
        self._db = db
        self._engine = engine
        self._processes = processes
        self._containers = containers
        self._leases = leases
        self._grace = grace

    async def take(self, actor: Actor, project_id: ProjectId) -> Checkpoint:
        """Save the project now, whether it runs or not, and return its checkpoint.

        ConflictError (``project_archived``) where there are no local files: they are saved already.
        """
        return await self._archives.save(await self._found(actor, project_id), reason="asked")

    async def list(self, actor: Actor, project_id: ProjectId) -> Sequence[Checkpoint]:
        """Return the project's checkpoints, newest first; never wakes it."""
        return await self._archives.list(await self._found(actor, project_id))

    async def verify(
        self, actor: Actor, project_id: ProjectId, checkpoint_id: str, *, read_data: bool
    ) -> Verified:
        """Check a checkpoint where it lies, its structure or every byte of it; never wakes the project."""
        return await self._archives.verify(
            await self._found(actor, project_id), checkpoint_id, read_data=read_data
        )

    async def restore(
        self, actor: Actor, project_id: ProjectId, checkpoint_id: str | None = None
    ) -> Checkpoint:
        """Put the project's files back to a checkpoint (None: the last); return the one brought back.

        What is there now is saved first, so this can be undone. The project is stopped after it.
        ConflictError (``project_busy``) while something holds it awake; NotFoundError
        (``checkpoint_not_found``).
        """
        project = await self._found(actor, project_id)
        chosen = await self._archives.chosen(project, checkpoint_id)
        async with self._containers.lock(project.id):
            if await self._leases.of(project.id):
                raise ConflictError(
                    "something is running in the project",
                    code="project_busy",
                    hint="Stop it first: a restore replaces the files under it.",
                )
            await self._halt(project)
            reached("restore.halted")
            if not self._archives.must_restore(project):
                await self._archives.save(project, reason="before_restore")
                reached("restore.saved")
            await self._containers.record(
                project.id, Phase.RESTORING, reason="asked", detail=chosen.id
            )
            reached("restore.recorded")
            await self._archives.bring_back(project, chosen.id)
            await self._containers.record(project.id, Phase.STOPPED, reason="restored")
            reached("restore.confirmed")
        return chosen

    async def _halt(self, project: Project) -> None:
        if await self._engine.inspect(project.id) is not None:
            await self._engine.stop(project.id, grace=self._grace)
            await self._processes.container_stopped(project.id, ExitReason.CONTAINER_STOPPED)

    async def _found(self, actor: Actor, project_id: ProjectId) -> Project:
        project = await self._db.read(project_rows.get, actor.user_id, project_id)
        if project is None:
            raise NotFoundError("there is no such project", code="project_unknown")
        return project
