"""How a project stands: who holds it awake, what comes next, what happened. Looking wakes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from anyon.db import events as event_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.actors import Actor
from anyon.domain.entities import Event, Lease, Project
from anyon.domain.errors import NotFoundError
from anyon.domain.ids import ProjectId
from anyon.domain.life import Step, Tiers, next_step_down
from anyon.services.leases import Leases
from anyon.services.places import Places


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A project, its holders, and the next step down and its time (None: none will come).

    ``position`` is where it stands in the line for a place to run, None if it does not wait.
    """

    project: Project
    leases: Sequence[Lease]
    next_step: Step | None
    next_step_at: datetime | None
    position: int | None = None


class Outlooks:
    """What users see of a project's life. An unknown or foreign id is ``project_unknown``."""

    def __init__(self, *, db: Database, leases: Leases, tiers: Tiers, places: Places) -> None:
        self._places = places
        self._db = db
        self._leases = leases
        self._tiers = tiers

    async def of(self, actor: Actor, project_id: ProjectId) -> Outlook:
        """Return how the project stands."""
        project = await self._found(actor, project_id)
        leases = await self._leases.of(project_id)
        coming = None if leases else next_step_down(project, tiers=self._tiers)
        step, at = coming or (None, None)
        return Outlook(
            project=project,
            leases=leases,
            next_step=step,
            next_step_at=at,
            position=self._places.position(project_id),
        )

    async def events(
        self, actor: Actor, project_id: ProjectId, *, after: int = 0
    ) -> Sequence[Event]:
        """Return up to 500 events after the sequence number *after*, oldest first."""
        await self._found(actor, project_id)
        return await self._db.read(event_rows.of_project, actor.user_id, project_id, after=after)

    async def _found(self, actor: Actor, project_id: ProjectId) -> Project:
        project = await self._db.read(project_rows.get, actor.user_id, project_id)
        if project is None:
            raise NotFoundError("there is no such project", code="project_unknown")
        return project
