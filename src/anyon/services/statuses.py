"""How all of a user's projects stand, in one look that wakes nothing."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import projects as project_rows
from anyon.db import statuses as rows
from anyon.db.databases import Database
from anyon.domain.actors import Actor
from anyon.domain.entities import Project
from anyon.domain.ids import ProjectId, UserId
from anyon.domain.life import Step, Tiers, next_step_down
from anyon.domain.states import TaskStatus
from anyon.services.archives import Archives
from anyon.services.leases import Leases
from anyon.services.observations import unsaved_for
from anyon.services.places import Places

_REMEMBERED = 10_000
"""Of so many projects it is known what was saved before this server's time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One project: its board, what runs, who holds it (reasons, counted), and how safe its files are.

    ``saved_at`` is the moment of its last saved state, None for none that is known of;
    ``unsaved_for`` is how long it has had work that no checkpoint holds, None where none are kept.
    """

    project: Project
    tasks: Mapping[TaskStatus, int]
    processes: int
    leases: Mapping[str, int]
    saved_at: datetime | None
    unsaved_for: timedelta | None
    next_step: Step | None
    next_step_at: datetime | None
    position: int | None


class Statuses:
    """Looks at everything that an actor may see."""

    def __init__(
        self,
        *,
        db: Database,
        leases: Leases,
        archives: Archives | None,
        places: Places,
        tiers: Tiers,
        clock: Clock,
    ) -> None:
        self._db = db
        self._leases = leases
        self._archives = archives
        self._places = places
        self._tiers = tiers
        self._clock = clock
        self._began = clock.now()
        self._saved_before: dict[ProjectId, datetime | None] = {}

    async def of(self, actor: Actor) -> Sequence[Standing]:
        """Return how each project stands, those first in which anything happened last."""
        projects, tasks, running = await self._db.read(_seen, actor.user_id)
        held: dict[ProjectId, Counter[str]] = {}
        for lease in await self._leases.all_held():
            held.setdefault(lease.project_id, Counter())[lease.reason] += 1
        await self._learn({project.id for project in projects})
        found = [
            self._standing(project, tasks, running, held.get(project.id, Counter()))
            for project in projects
        ]
        return sorted(found, key=lambda one: one.project.last_active_at, reverse=True)

    async def _learn(self, projects: Collection[ProjectId]) -> None:
        """Look up once what an earlier life of the server saved; this one's saves are known."""
        unknown = projects - self._saved_before.keys()
        if unknown and self._archives is not None:
            found = await self._db.read(rows.last_saves, unknown)
            if len(self._saved_before) >= _REMEMBERED:  # most of them are of projects that are gone
                self._saved_before.clear()
            self._saved_before.update({one: found.get(one) for one in unknown})

    def _standing(
        self,
        project: Project,
        tasks: Mapping[ProjectId, Mapping[TaskStatus, int]],
        running: Mapping[ProjectId, int],
        held: Mapping[str, int],
    ) -> Standing:
        saved_at, unsaved = None, None
        if self._archives is not None:
            known = self._archives.saved_at.get(project.id)
            saved_at = known or self._saved_before.get(project.id)
            unsaved = unsaved_for(
                project,
                saved_at=known,
                is_held=bool(held),
                began=self._began,
                now=self._clock.now(),
            )
        coming = None if held else next_step_down(project, tiers=self._tiers)
        step, at = coming or (None, None)
        return Standing(
            project=project,
            tasks=tasks.get(project.id, {}),
            processes=running.get(project.id, 0),
            leases=held,
            saved_at=saved_at,
            unsaved_for=unsaved,
            next_step=step,
            next_step_at=at,
            position=self._places.position(project.id),
        )


def _seen(
    connection: Connection, user: UserId
) -> tuple[
    Sequence[Project], Mapping[ProjectId, Mapping[TaskStatus, int]], Mapping[ProjectId, int]
]:
    return (
        project_rows.of_user(connection, user),
        rows.task_counts(connection, user),
        rows.running_counts(connection, user),
    )
