"""The loop that saves projects in which something happens, so that little is lost with a machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from anyon.clock import Clock
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError
from anyon.domain.ids import ProjectId
from anyon.services.archives import Archives
from anyon.services.homes import Homes
from anyon.services.leases import Leases

log = structlog.get_logger(__name__)

SHORT_LANE = 0
LANES = 2
LONG = timedelta(seconds=20)
"""A project whose last save took longer, or that none is known of, keeps out of the short lane."""
AFTER_WORK = timedelta(seconds=10)
"""How much time passes at least between two saves for the ends of short works."""
LONGEST_PAUSE = timedelta(minutes=10)
FIRST_PAUSE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Saving:
    """What is known of a project's saves by this server."""

    began: float
    """When the last one that succeeded began, by ``Clock.monotonic``; minus infinity for none."""
    took: float
    """How many seconds it took."""
    failures: int = 0
    """How many failed since."""
    not_before: float = 0.0


_NONE = Saving(began=float("-inf"), took=float("inf"))


class Checkpointer:
    """Saves awake projects that were active since their last save; who waits longest is first.

    A project is saved once an interval at the most, whatever asked for the save before, and soon
    after the last work in it has ended. Lanes tick beside each other: the short one takes no
    project whose saves are long, so that one of gigabytes does not keep the others waiting, and
    no more than one such is under way. After a failure the former checkpoint stays, and the
    project waits, each time twice as long.
    """

    def __init__(
        self,
        *,
        db: Database,
        archives: Archives,
        leases: Leases,
        homes: Homes,
        clock: Clock,
        interval: timedelta = timedelta(0),
    ) -> None:
        self._db = db
        self._archives = archives
        self._leases = leases
        self._homes = homes
        self._clock = clock
        self._interval = interval.total_seconds()
        self._known: dict[ProjectId, Saving] = {}
        self._held: set[ProjectId] = set()
        self._ended: set[ProjectId] = set()
        self._under_way: set[ProjectId] = set()

    async def tick(self, lane: int = LANES - 1) -> None:
        """Save every project that needs it once, as far as it is this lane's."""
        tried: set[ProjectId] = set()
        while True:
            due = [p for p in await self._due() if p.id not in tried and self._takes(lane, p)]
            if not due:
                return
            tried.add(due[0].id)
            await self._save(due[0])

    def _takes(self, lane: int, project: Project) -> bool:
        saving = self._known.get(project.id, _NONE)
        return lane != SHORT_LANE or saving.took <= LONG.total_seconds()

    async def _due(self) -> Sequence[Project]:
        """Return the projects to save now, the one that waits longest first."""
        projects = await self._db.read(project_rows.awake)
        held = {lease.project_id for lease in await self._leases.all_held()}
        awake = {project.id for project in projects}
        self._ended = (self._ended | (self._held - held)) & awake - held
        self._held = held
        # A stop has saved what sleeps now: what is known of it is of no use at its waking.
        self._known = {k: v for k, v in self._known.items() if k in awake}
        # What lies on a mounted bucket is saved at stops only: it is in the bucket already.
        found = [
            project
            for project in projects
            if not self._homes.is_mounted(project)
            and project.id not in self._under_way
            and self._needs_save(project, is_held=project.id in held)
        ]
        return sorted(found, key=lambda project: self._began(project.id))

    def _began(self, project: ProjectId) -> float:
        """Return when the last save began, whoever asked for it."""
        other = self._archives.saved_steady.get(project, float("-inf"))
        return max(other, self._known.get(project, _NONE).began)

    def _needs_save(self, project: Project, *, is_held: bool) -> bool:
        now = self._clock.monotonic()
        if now < self._known.get(project.id, _NONE).not_before:
            return False
        since = now - self._began(project.id)
        if project.id in self._ended:
            return since >= min(self._interval, AFTER_WORK.total_seconds())
        idle = (self._clock.now() - project.last_active_at).total_seconds()
        return since >= self._interval and (is_held or idle < since)

    async def _save(self, project: Project) -> None:
        began = self._clock.monotonic()
        reason = "work_ended" if project.id in self._ended else "interval"
        self._under_way.add(project.id)
        self._ended.discard(project.id)
        try:
            await self._archives.save(project, reason=reason)
        except AnyonError as error:
            self._failed(project, error, was_end=reason != "interval")
        else:
            took = self._clock.monotonic() - began
            self._known[project.id] = Saving(began=began, took=took)
        finally:
            self._under_way.discard(project.id)

    def _failed(self, project: Project, error: AnyonError, *, was_end: bool) -> None:
        former = self._known.get(project.id, _NONE)
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(former.failures, 10))
        log.warning(
            "project.save_failed",
            project=project.id,
            code=error.code,
            failures=former.failures + 1,
            again_in_seconds=pause.total_seconds(),
        )
        self._known[project.id] = Saving(
            began=former.began,
            took=former.took,
            failures=former.failures + 1,
            not_before=self._clock.monotonic() + pause.total_seconds(),
        )
        if was_end:
            self._ended.add(project.id)
