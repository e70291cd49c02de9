"""What is there at the moment of a scrape, read from the engine and the records, never counted along."""

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import processes as process_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.entities import Process, Project
from anyon.domain.errors import AnyonError
from anyon.domain.ids import ProjectId
from anyon.domain.states import Phase, ProcessStatus, RunReason
from anyon.engines.engine import ContainerInfo, ContainerState, Engine
from anyon.services.archives import Archives
from anyon.services.disks import Disks
from anyon.services.holds import is_hold
from anyon.services.leases import Leases
from anyon.services.places import Places
from anyon.services.standings import class_of
from anyon.telemetry import CLASSES, Metrics, Scene, Usage

log = structlog.get_logger(__name__)

_AT_ONCE = 8
_AWAKE = frozenset({Phase.RUNNING, Phase.FROZEN, Phase.STOPPING, Phase.STOPPED_UNSAVED})


class Observations:
    """Brings the gauges up to what is there; many scrapes within *fresh_for* cost one look.

    An engine that does not answer (within *patience*, for each of two questions: Prometheus gives
    up after ten seconds) costs its own gauges only: the rest is told all the same.
    """

    def __init__(
        self,
        *,
        db: Database,
        engine: Engine,
        leases: Leases,
        places: Places,
        disks: Disks,
        archives: Archives | None,
        metrics: Metrics,
        clock: Clock,
        home: Path,
        server_id: str,
        fresh_for: timedelta = timedelta(seconds=1),
        patience: timedelta = timedelta(seconds=4),
    ) -> None:
        self._db = db
        self._engine = engine
        self._leases = leases
        self._places = places
        self._disks = disks
        self._archives = archives
        self._metrics = metrics
        self._clock = clock
        self._home = home
        self._server_id = server_id
        self._fresh_for = fresh_for.total_seconds()
        self._patience = patience.total_seconds()
        self._began = clock.now()
        self._looked: float | None = None
        self._turn = asyncio.Lock()

    async def refresh(self) -> None:
        """Look, unless somebody has just done so."""
        async with self._turn:
            now = self._clock.monotonic()
            if self._looked is None or now - self._looked >= self._fresh_for:
                self._metrics.show(await self._scene())
                self._looked = self._clock.monotonic()

    async def _scene(self) -> Scene:
        containers = await self._containers()
        projects, processes = await self._db.read(_records, self._server_id)
        own = {project.id for project in projects}
        leases = [one for one in await self._leases.all_held() if one.project_id in own]
        now, held = self._clock.now(), {lease.project_id for lease in leases}
        disk = await asyncio.to_thread(shutil.disk_usage, self._home)
        return Scene(
            containers=None if containers is None else count_states(containers),
            idle=idle_times(containers or (), projects, held, now),
            phases=_counted(Phase, (project.phase for project in projects)),
            leases=Counter("hold" if is_hold(lease) else lease.reason for lease in leases),
            processes=_counted(
                RunReason,
                (
                    one.run_reason
                    for one in processes
                    if one.project_id in own and one.status is ProcessStatus.RUNNING
                ),
            ),
            checkpoint_ages=self._ages(projects, held, now),
            queue_length=self._places.waiting,
            database_bytes=await self._db.size_bytes(),
            disk_free_bytes=disk.free,
            disk_size_bytes=disk.total,
            owners={project.id: project.user_id for project in projects},
            disk=self._disks.used,
            usage=await self._usage(containers or ()) if self._metrics.per_project else {},
        )

    async def _containers(self) -> Sequence[ContainerInfo] | None:
        try:
            async with asyncio.timeout(self._patience):
                return await self._engine.list()
        except TimeoutError:
            log.warning("engine.not_observed", code="deadline_exceeded")
        except AnyonError as error:
            log.warning("engine.not_observed", code=error.code, error=str(error))
        return None

    async def _usage(self, containers: Sequence[ContainerInfo]) -> Mapping[str, Usage]:
        """Return what each container uses, as far as the engine says so in time."""
        found: dict[str, Usage] = {}
        places = asyncio.Semaphore(_AT_ONCE)

        async def measure(project: ProjectId) -> None:
            async with places:
                try:
                    stats = await self._engine.stats(project)
                except AnyonError as error:  # it may just have been removed
                    log.debug("container.not_measured", project=project, code=error.code)
                    return
            if stats is not None:
                found[project] = Usage(
                    cpu_seconds=stats.cpu_seconds,
                    memory_bytes=stats.memory_bytes,
                    pids=stats.pids,
                    oom_kills=stats.oom_kills,
                )

        try:
            async with (
                asyncio.timeout(self._patience),
                asyncio.TaskGroup() as group,
            ):
                for info in containers:
                    if info.state is not ContainerState.STOPPED:
                        group.create_task(measure(info.project))
        except TimeoutError:
            log.warning("containers.not_measured", count=len(containers) - len(found))
        return found

    def _ages(
        self, projects: Sequence[Project], held: set[ProjectId], now: datetime
    ) -> Mapping[str, timedelta] | None:
        """Return the age of the oldest unsaved work, by class of project; None where none is saved."""
        if self._archives is None:
            return None
        saved_at = self._archives.saved_at
        ages = dict.fromkeys(CLASSES, timedelta(0))
        for project in projects:
            is_held = project.id in held
            age = unsaved_for(
                project,
                saved_at=saved_at.get(project.id),
                is_held=is_held,
                began=self._began,
                now=now,
            )
            kind = class_of(project, is_held=is_held)
            ages[kind] = max(ages[kind], age)
        return ages


def _records(connection: Connection, server_id: str) -> tuple[Sequence[Project], Sequence[Process]]:
    """Return the projects that this server acts on (another tells of its own), and what is open."""
    found = project_rows.of_server(connection, server_id)
    projects = [project for project in found if project.deleted_at is None]
    return projects, process_rows.open_ones(connection)


def _counted(words: type[StrEnum], found: Iterable[StrEnum]) -> Mapping[str, int]:
    counts = Counter(found)
    return {word.value: counts[word] for word in words}


def count_states(containers: Sequence[ContainerInfo]) -> Mapping[str, int]:
    """Return how many containers are in each state."""
    found = Counter(info.state.value for info in containers)
    return {state.value: found[state.value] for state in ContainerState}


def idle_times(
    containers: Sequence[ContainerInfo],
    projects: Sequence[Project],
    held: set[ProjectId],
    now: datetime,
) -> Sequence[timedelta]:
    """Return for how long each container that takes up memory and is held by nobody has been idle."""
    by_id = {project.id: project for project in projects}
    return [
        now - by_id[info.project].last_active_at
        for info in containers
        if info.state is not ContainerState.STOPPED
        and info.project in by_id
        and info.project not in held
    ]


def unsaved_for(
    project: Project,
    *,
    saved_at: datetime | None,
    is_held: bool,
    began: datetime,
    now: datetime,
) -> timedelta:
    """Return for how long a project has had work that no checkpoint holds; 0 when all is saved.

    What an earlier life of the server (before *began*) saved is not known: it is taken to have
    done its part until then, and to have saved what it froze.
    """
    if project.phase not in _AWAKE:
        return timedelta(0)
    if saved_at is None:
        if project.phase is Phase.FROZEN and project.phase_since < began:
            return timedelta(0)
        return now - max(project.created_at, began)
    if not is_held and project.last_active_at <= saved_at:
        return timedelta(0)
    return now - saved_at
