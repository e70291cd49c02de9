"""Use cases on checkpoints: take one and check one here; looking, going back, forking beside it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.actors import Actor
from anyon.domain.entities import Project
from anyon.domain.errors import NotFoundError
from anyon.domain.ids import ProjectId
from anyon.services.activities import Activities
from anyon.services.archives import Archives, place
from anyon.services.containers import Containers
from anyon.services.feed import Feed
from anyon.services.forks import Forks
from anyon.services.histories import Histories
from anyon.services.homes import Homes
from anyon.services.leases import Leases
from anyon.services.projects import Projects
from anyon.services.restores import Restores
from anyon.services.runs import Runs
from anyon.services.supervisors import Supervisor
from anyon.services.upkeep import Upkeep
from anyon.storage.browsing import Browser
from anyon.storage.records import Checkpoint
from anyon.storage.verifying import Verified

if TYPE_CHECKING:
    from anyon.services.parts import Parts


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


def assembled(
    parts: "Parts",
    archives: Archives | None,
    *,
    containers: Containers,
    leases: Leases,
    runs: Runs,
    projects: Projects,
    homes: Homes,
    feed: Feed,
    supervisor: Supervisor,
) -> ProjectCheckpoints | None:
    """Return the use cases on checkpoints, wired together; None where none are kept."""
    if archives is None:
        return None
    db, clock, metrics = parts.db, parts.clock, parts.metrics
    activities = archives.progresses.activities
    browser = Browser(archives.checkpoints)
    return ProjectCheckpoints(
        archives=archives,
        db=db,
        activities=activities,
        history=Histories(archives=archives, browser=browser, db=db),
        restores=Restores(
            archives=archives,
            browser=browser,
            db=db,
            engine=parts.engine,
            processes=parts.processes,
            containers=containers,
            leases=leases,
            runs=runs,
            homes=homes,
            activities=activities,
            clock=clock,
            metrics=metrics,
            grace=parts.stop_grace,
        ),
        forks=Forks(
            archives=archives,
            db=db,
            projects=projects,
            leases=leases,
            homes=homes,
            feed=feed,
            activities=activities,
            clock=clock,
            supervisor=supervisor,
            metrics=metrics,
        ),
        upkeep=Upkeep(
            archives=archives,
            db=db,
            homes=homes,
            activities=activities,
            clock=clock,
            metrics=metrics,
            grace=parts.collect_grace,
        ),
    )
