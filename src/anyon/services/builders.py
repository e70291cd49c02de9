"""All use cases over their parts, wired together."""

from dataclasses import dataclass

import structlog

from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.capacity import Capacity
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError
from anyon.domain.life import Tiers
from anyon.domain.states import Phase
from anyon.failpoints import reached
from anyon.services import stores
from anyon.services.archives import Archives
from anyon.services.attempts import Attempts
from anyon.services.checkpoints import ProjectCheckpoints, assembled
from anyon.services.containers import Containers
from anyon.services.deletions import Deletions
from anyon.services.feed import Feed
from anyon.services.goals import Goals
from anyon.services.holds import Holds
from anyon.services.homes import Homes, server_id
from anyon.services.imports import Imports
from anyon.services.launches import Launches
from anyon.services.leases import Leases
from anyon.services.logs import ProcessLogs
from anyon.services.moves import Moves
from anyon.services.outlooks import Outlooks
from anyon.services.parts import Parts
from anyon.services.pictures import Pictures
from anyon.services.places import Places, WakeBudget
from anyon.services.previews import Previews, previewed
from anyon.services.processes import ProcessRuns
from anyon.services.projects import Projects
from anyon.services.runs import Runs
from anyon.services.saved_work import SavedWorks
from anyon.services.statuses import Statuses
from anyon.services.steps import Steps
from anyon.services.supervisors import Supervisor
from anyon.services.tags import Tags
from anyon.services.tasks import Tasks
from anyon.services.tokens import Tokens
from anyon.services.views import Views, viewed

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All use cases, wired together."""

    projects: Projects
    tasks: Tasks
    attempts: Attempts
    processes: ProcessRuns
    logs: ProcessLogs | None
    containers: Containers
    archives: Archives | None
    checkpoints: ProjectCheckpoints | None
    outlooks: Outlooks
    statuses: Statuses
    places: Places
    holds: Holds
    goals: Goals
    steps: Steps
    previews: Previews
    saved_work: SavedWorks
    views: Views
    deletions: Deletions
    moves: Moves
    tokens: Tokens
    tags: Tags
    pictures: Pictures
    feed: Feed
    runs: Runs
    leases: Leases
    homes: Homes
    db: Database
    supervisor: Supervisor
    server_id: str
    tiers: Tiers

    async def recover(self) -> None:
        """Take up what an earlier life of this server left; call it once, before serving.

        Creations that were not finished are undone, deletions finished, processes adopted and
        their chains carried on, the trash emptied. What fails for one project does not keep the
        others: it is logged, and that project is taken up by the next start.
        """
        await self.leases.drop_former()
        await self.homes.discard_restores()
        for project in await self.db.read(project_rows.of_server, self.server_id):
            try:
                await self._recover(project)
                reached("adopt.project_taken_up")
            except AnyonError as error:
                log.warning("project.recovery_failed", project=project.id, error=str(error))
        self.supervisor.spawn(self.homes.empty_trash(), name="trash")

    async def _recover(self, project: Project) -> None:
        match project.phase:
            case Phase.CREATING:
                await self.projects.undo(project)
            case Phase.ERROR if project.state_reason == "creating_deadline":
                await self.projects.undo(project)
            case Phase.DELETING:
                await self.projects.erase_or_later(project)
            case _ if project.deleted_at is None:
                await self.moves.recover(project)
                await self.runs.recover(project.id)
            case _:
                pass

    async def close(self) -> None:
        """Stop following processes (they go on) and end the feed; the database stays open."""
        self.feed.close()
        await self.previews.close()
        await self.supervisor.close()


def build(parts: Parts) -> Services:
    """Return the use cases over *parts*; nothing is started or touched but ``server-id``."""
    db, clock, feed, supervisor = parts.db, parts.clock, Feed(), Supervisor()
    server = server_id(parts.home)
    homes = Homes(
        parts.home,
        owner=parts.files_owner,
        mounts=parts.mounts,
        is_on_mount=parts.is_on_mount,
    )
    leases = Leases(db, clock, supervisor, server_id=server, ttl=parts.lease_ttl)
    archives = stores.archives(parts, homes)
    places = Places(
        engine=parts.engine, clock=clock, supervisor=supervisor, capacity=_capacity(parts)
    )
    containers = Containers(
        db=db,
        engine=parts.engine,
        processes=parts.processes,
        leases=leases,
        homes=homes,
        feed=feed,
        clock=clock,
        supervisor=supervisor,
        places=places,
        budget=WakeBudget(parts.wakes_per_hour, clock),
        image=parts.image,
        limits=parts.limits,
        archives=archives,
        metrics=parts.metrics,
        terminal_awake=parts.terminal_awake,
    )
    launches = Launches(
        db=db,
        processes=parts.processes,
        repositories=parts.repositories,
        find_agent=parts.find_agent,
        environment=parts.environment,
        default_agent=parts.default_agent,
        clock=clock,
        output_cap_bytes=parts.output_cap_bytes,
    )
    runs = Runs(
        db=db,
        processes=parts.processes,
        repositories=parts.repositories,
        containers=containers,
        launches=launches,
        feed=feed,
        clock=clock,
        supervisor=supervisor,
        stop_grace=parts.stop_grace,
        metrics=parts.metrics,
    )
    return _gathered(
        parts, archives, leases, containers, places, launches, runs, homes, feed, supervisor
    )


def _moves(  # noqa: PLR0917 - a part of _gathered
    parts: Parts,
    containers: Containers,
    leases: Leases,
    homes: Homes,
    archives: Archives | None,
    supervisor: Supervisor,
    views: Views,
) -> Moves:
    return Moves(
        db=parts.db,
        engine=parts.engine,
        containers=containers,
        repositories=parts.repositories,
        leases=leases,
        homes=homes,
        archives=archives,
        supervisor=supervisor,
        views=views,
        clock=parts.clock,
    )


def _steps(
    parts: Parts, containers: Containers, leases: Leases, archives: Archives | None, views: Views
) -> Steps:
    return Steps(
        db=parts.db,
        engine=parts.engine,
        processes=parts.processes,
        containers=containers,
        leases=leases,
        archives=archives,
        clock=parts.clock,
        tiers=parts.tiers,
        grace=parts.stop_grace,
        views=views,
        metrics=parts.metrics,
    )


def _goals(  # noqa: PLR0917 - a part of _gathered
    parts: Parts,
    containers: Containers,
    leases: Leases,
    runs: Runs,
    steps: Steps,
    feed: Feed,
    supervisor: Supervisor,
) -> Goals:
    return Goals(
        db=parts.db,
        containers=containers,
        leases=leases,
        runs=runs,
        steps=steps,
        feed=feed,
        clock=parts.clock,
        supervisor=supervisor,
    )


def _capacity(parts: Parts) -> Capacity:
    return Capacity(
        most_running=parts.max_running,
        most_memory_bytes=parts.max_memory,
        each_bytes=parts.limits.memory_bytes or 0,
    )


def _statuses(parts: Parts, archives: Archives | None, leases: Leases, places: Places) -> Statuses:
    return Statuses(
        db=parts.db,
        leases=leases,
        archives=archives,
        places=places,
        tiers=parts.tiers,
        clock=parts.clock,
    )


def _projects(  # noqa: PLR0917 - a part of _gathered
    parts: Parts,
    archives: Archives | None,
    leases: Leases,
    containers: Containers,
    launches: Launches,
    runs: Runs,
    homes: Homes,
    feed: Feed,
    supervisor: Supervisor,
    views: Views,
) -> Projects:
    return Projects(
        db=parts.db,
        containers=containers,
        repositories=parts.repositories,
        launches=launches,
        leases=leases,
        runs=runs,
        homes=homes,
        archives=archives,
        imports=Imports(parts.home, is_allowed=parts.may_import),
        feed=feed,
        clock=parts.clock,
        supervisor=supervisor,
        views=views,
    )


def _tasks(parts: Parts, containers: Containers, feed: Feed, supervisor: Supervisor) -> Tasks:
    return Tasks(
        db=parts.db,
        processes=parts.processes,
        containers=containers,
        repositories=parts.repositories,
        feed=feed,
        clock=parts.clock,
        supervisor=supervisor,
    )


def _gathered(  # noqa: PLR0917 - the second half of build
    parts: Parts,
    archives: Archives | None,
    leases: Leases,
    containers: Containers,
    places: Places,
    launches: Launches,
    runs: Runs,
    homes: Homes,
    feed: Feed,
    supervisor: Supervisor,
) -> Services:
    db, clock = parts.db, parts.clock
    logs = stores.logs(parts, homes, feed, supervisor)
    views = viewed(parts, containers, leases)
    projects = _projects(
        parts, archives, leases, containers, launches, runs, homes, feed, supervisor, views
    )
    steps = _steps(parts, containers, leases, archives, views)
    return Services(
        projects=projects,
        tasks=_tasks(parts, containers, feed, supervisor),
        attempts=Attempts(
            db=db,
            containers=containers,
            repositories=parts.repositories,
            launches=launches,
            runs=runs,
            feed=feed,
            clock=clock,
            supervisor=supervisor,
            views=views,
            metrics=parts.metrics,
        ),
        processes=ProcessRuns(
            db=db,
            processes=parts.processes,
            launches=launches,
            runs=runs,
            clock=clock,
            supervisor=supervisor,
            logs=logs,
        ),
        logs=logs,
        containers=containers,
        archives=archives,
        checkpoints=assembled(
            parts,
            archives,
            projects=projects,
            containers=containers,
            leases=leases,
            runs=runs,
            homes=homes,
            feed=feed,
            supervisor=supervisor,
        ),
        deletions=Deletions(
            db=db, archives=archives, feed=feed, clock=clock, window=parts.undo_window
        ),
        moves=_moves(parts, containers, leases, homes, archives, supervisor, views),
        holds=Holds(db=db, containers=containers, leases=leases, feed=feed, clock=clock),
        goals=_goals(parts, containers, leases, runs, steps, feed, supervisor),
        steps=steps,
        previews=previewed(parts, containers, supervisor),
        saved_work=SavedWorks(
            db=db, containers=containers, repositories=parts.repositories, views=views
        ),
        views=views,
        places=places,
        statuses=_statuses(parts, archives, leases, places),
        outlooks=Outlooks(db=db, leases=leases, tiers=parts.tiers, places=places),
        tokens=Tokens(db, clock),
        tags=Tags(db, clock),
        pictures=Pictures(db, clock, quota=parts.picture_quota),
        feed=feed,
        runs=runs,
        leases=leases,
        homes=homes,
        db=db,
        supervisor=supervisor,
        server_id=server_id(parts.home),
        tiers=parts.tiers,
    )
