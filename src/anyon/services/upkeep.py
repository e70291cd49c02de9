"""Looking after what projects have in the store: its size, its collection, its proofs."""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from anyon.clock import Clock
from anyon.db import events as event_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.actors import Actor
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError, NotFoundError
from anyon.domain.ids import ProjectId, new_id
from anyon.services.activities import Activities
from anyon.services.archives import Archives, place
from anyon.services.homes import Homes
from anyon.services.trees import explained
from anyon.storage.collection import Collected
from anyon.storage.comparisons import Compared
from anyon.storage.folders import remove_tree
from anyon.storage.histories import Usage
from anyon.storage.records import Checkpoint
from anyon.storage.verifying import Checks, Damage, Verified
from anyon.telemetry import Metrics

log = structlog.get_logger(__name__)
PROVEN = "restore.proven"
UNPROVEN = "restore.unproven"
COLLECTED = "store.collected"
_SPARE = 1.2
"""How much more room than the files' size a proof wants to find free."""
_MOST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a project stands in the store, when its restore was last proven, when it was collected."""

    project: Project
    usage: Usage
    proven_at: datetime | None
    collected_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """How a restore drill ended; ``checkpoint`` None: there was none to restore.

    ``skipped`` says why nothing was restored; else ``problems`` are the differences found.
    """

    project: Project
    checkpoint: Checkpoint | None
    at: datetime
    files: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    problems: Sequence[str] = ()
    skipped: str = ""

    @property
    def is_proven(self) -> bool:
        """Whether all came back as it was written."""
        return not self.skipped and not self.problems


@dataclass(slots=True)
class Audit:
    """What a verification of all of a project's checkpoints saw."""

    checkpoints: int = 0
    files: int = 0
    packs: int = 0
    problems: list[str] = field(default_factory=list)
    damaged: dict[str, list[Damage]] = field(default_factory=dict)
    """By checkpoint: what of it is damaged, and where it is whole."""


class Upkeep:
    """What users and the loops do about the store.

    A foreign or unknown project is NotFoundError (``project_unknown``). Nothing here wakes a project.
    """

    def __init__(
        self,
        *,
        archives: Archives,
        db: Database,
        homes: Homes,
        activities: Activities,
        clock: Clock,
        metrics: Metrics,
        grace: timedelta,
    ) -> None:
        self._archives = archives
        self._checkpoints = archives.checkpoints
        self._db = db
        self._homes = homes
        self._activities = activities
        self._clock = clock
        self._metrics = metrics
        self._grace = grace

    async def projects(self, actor: Actor) -> Sequence[Project]:
        """Return the actor's projects."""
        return await self._db.read(project_rows.of_user, actor.user_id)

    async def find(self, actor: Actor, project_id: ProjectId) -> Project:
        """Return one of the actor's projects."""
        project = await self._db.read(project_rows.get, actor.user_id, project_id)
        if project is None:
            raise NotFoundError("there is no such project", code="project_unknown")
        return project

    async def standing(self, project: Project) -> Standing:
        """Return how a project stands in the store."""
        usage = await self._checkpoints.usage(place(project))
        latest = await self._db.read(event_rows.latest, (PROVEN, COLLECTED), project=project.id)
        return Standing(
            project=project,
            usage=usage,
            proven_at=latest.get((project.id, PROVEN)),
            collected_at=latest.get((project.id, COLLECTED)),
        )

    async def verify(self, project: Project, *, read_data: bool) -> Audit:
        """Check every checkpoint of a project; with *read_data* each stored byte, once."""
        audit, checks = Audit(), Checks()
        packs: set[str] = set()
        with self._activities.begun(project.id, "verify") as activity:
            where = place(project)
            for checkpoint_id in await self._checkpoints.ids(where):
                checkpoint = await self._checkpoints.get(where, checkpoint_id)
                seen: Verified = await self._checkpoints.verify(
                    where,
                    checkpoint_id,
                    read_data=read_data,
                    checks=checks,
                    progress=activity.progress,
                )
                audit.checkpoints += 1
                audit.files += seen.files
                packs |= checkpoint.packs.keys()
                audit.problems += [f"{checkpoint_id}: {problem}" for problem in seen.problems]
                if seen.damaged:
                    audit.damaged[checkpoint_id] = seen.damaged
        audit.packs = len(packs)
        del audit.problems[_MOST:]
        return audit

    async def collect(self, project: Project) -> Collected:
        """Drop what the retention lets go and nothing needs any more; returns what went.

        ConflictError ``collection_busy``, ``project_being_read``, ``owned_elsewhere``.
        """
        began = self._clock.monotonic()
        try:
            with self._activities.begun(project.id, "collect"):
                epoch = await self._archives.claimed(project)
                collected = await self._checkpoints.collect(
                    place(project), epoch=epoch, grace=self._grace
                )
        except AnyonError:
            self._metrics.checkpoints.collection_failed()
            raise
        self._metrics.checkpoints.collected(
            self._clock.monotonic() - began,
            checkpoints=collected.checkpoints,
            packs=collected.packs,
            size_bytes=collected.bytes,
        )
        detail = (
            f"{collected.checkpoints} checkpoints, {collected.packs} packs, {collected.bytes} bytes"
        )
        await self._note(project, COLLECTED, detail)
        return collected

    async def drill(self, project: Project) -> Drill:
        """Restore the last checkpoint to a place aside, hold it against the store, and record the outcome.

        What is damaged is in the outcome, not raised; a store that does not answer is raised.
        """
        checkpoint = await self._checkpoints.latest(place(project))
        now = self._clock.now()
        if checkpoint is None:
            return Drill(project=project, checkpoint=None, at=now, skipped="no checkpoint yet")
        free = shutil.disk_usage(self._homes.home).free
        if free < checkpoint.size_bytes * _SPARE:
            self._metrics.checkpoints.drilled("skipped")
            log.warning("restore.drill_skipped", project=project.id, free_bytes=free)
            return Drill(
                project=project, checkpoint=checkpoint, at=now, skipped="not enough free disk space"
            )
        began = self._clock.monotonic()
        compared = await self._compared(project, checkpoint)
        seconds = self._clock.monotonic() - began
        outcome = Drill(
            project=project,
            checkpoint=checkpoint,
            at=now,
            files=compared.files,
            size_bytes=compared.size_bytes,
            seconds=seconds,
            problems=compared.problems,
        )
        await self._record(outcome)
        return outcome

    async def _compared(self, project: Project, checkpoint: Checkpoint) -> Compared:
        staging = self._homes.staging(project.id, f"drill-{new_id()}")
        targets = {name: staging / name for name in checkpoint.roots}
        began = self._clock.monotonic()
        try:
            with self._activities.begun(project.id, "drill") as activity:
                await self._checkpoints.restore(
                    place(project), checkpoint.id, targets, progress=activity.progress
                )
                self._metrics.checkpoints.restored("drill", self._clock.monotonic() - began)
                return await self._checkpoints.compare(place(project), checkpoint.id, targets)
        except AnyonError as error:
            self._metrics.checkpoints.restore_failed("drill")
            if error.status < 500 or error.code in _UNANSWERED:
                raise
            seen = await self._checkpoints.verify(place(project), checkpoint.id, read_data=True)
            offers = [f"whole in {one.intact_id}" for one in seen.damaged if one.intact_id]
            return Compared(problems=[error.message, *seen.problems, *offers][:_MOST])
        except OSError as error:
            self._metrics.checkpoints.restore_failed("drill")
            raise explained(error, "restoring for proof") from error
        finally:
            await asyncio.to_thread(remove_tree, bytes(staging))

    async def _record(self, outcome: Drill) -> None:
        assert outcome.checkpoint is not None
        if outcome.is_proven:
            self._metrics.checkpoints.drilled("proven")
            self._metrics.checkpoints.proven(outcome.at)
            await self._note(outcome.project, PROVEN, outcome.checkpoint.id)
            log.info("restore.proven", project=outcome.project.id, checkpoint=outcome.checkpoint.id)
            return
        self._metrics.checkpoints.drilled("failed")
        detail = f"{outcome.checkpoint.id}: {'; '.join(outcome.problems[:5])}"
        await self._note(outcome.project, UNPROVEN, detail[:2000])
        log.error("restore.unproven", project=outcome.project.id, problems=outcome.problems[:5])

    async def drilled_at(self) -> Mapping[ProjectId, datetime]:
        """Return when a drill was last made of each project, whatever its outcome."""
        latest = await self._db.read(event_rows.latest, (PROVEN, UNPROVEN))
        proven = [at for (_, kind), at in latest.items() if kind == PROVEN]
        if proven:
            self._metrics.checkpoints.proven(max(proven))
        found: dict[ProjectId, datetime] = {}
        for (project, _), at in latest.items():
            found[project] = max(at, found.get(project, at))
        return found

    async def _note(self, project: Project, kind: str, detail: str) -> None:
        now = self._clock.now()
        await self._db.write(event_rows.add, project.id, kind, now, detail=detail)


_UNANSWERED = frozenset({"store_unavailable", "stopped", "internal"})
