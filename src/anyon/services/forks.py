"""Forks: a new project that begins with a checkpoint of another, in constant time."""

from dataclasses import replace

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import copies
from anyon.db import events as event_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain import names
from anyon.domain.actors import Actor
from anyon.domain.entities import Project
from anyon.domain.errors import ConflictError, NotFoundError
from anyon.domain.ids import ProjectId, new_id
from anyon.domain.states import Goal, Phase
from anyon.failpoints import reached
from anyon.services.activities import Activities
from anyon.services.archives import FORKING, Archives, place
from anyon.services.feed import Change, Feed, Kind
from anyon.services.homes import Homes
from anyon.services.leases import Leases
from anyon.services.projects import Projects
from anyon.services.supervisors import Supervisor
from anyon.telemetry import Metrics

log = structlog.get_logger(__name__)


class Forks:
    """Makes projects from checkpoints. A foreign or unknown project is NotFoundError (``project_unknown``)."""

    def __init__(
        self,
        *,
        archives: Archives,
        db: Database,
        projects: Projects,
        leases: Leases,
        homes: Homes,
        feed: Feed,
        activities: Activities,
        clock: Clock,
        supervisor: Supervisor,
        metrics: Metrics,
    ) -> None:
        self._archives = archives
        self._db = db
        self._projects = projects
        self._leases = leases
        self._homes = homes
        self._feed = feed
        self._activities = activities
        self._clock = clock
        self._supervisor = supervisor
        self._metrics = metrics

    async def make(
        self, actor: Actor, project_id: ProjectId, checkpoint_id: str | None, name: str
    ) -> Project:
        """Return a new project with the files of a checkpoint (None: the last), and the settings of its source.

        It is archived: its first work brings the files. Tasks stay with the source, worktrees
        come as files. On failure nothing is left behind. NotFoundError ``checkpoint_not_found``;
        ConflictError ``name_taken``; InvalidInputError as for any project's name.
        """
        source = await self._db.read(project_rows.get, actor.user_id, project_id)
        if source is None:
            raise NotFoundError("there is no such project", code="project_unknown")
        chosen = await self._archives.chosen(source, checkpoint_id)
        now, new = self._clock.now(), ProjectId(new_id())
        fork = replace(
            source,
            id=new,
            user_id=actor.user_id,
            name=names.project_name(name),
            path=str(self._homes.project(actor.user_id, new)),
            goal=Goal.RUNNING,
            phase=Phase.CREATING,
            phase_since=now,
            state_reason=FORKING,
            state_detail=chosen.id,
            last_active_at=now,
            # What was installed came along only where the checkpoint has it.
            setup_completed_at=source.setup_completed_at if "system" in chosen.roots else None,
            created_at=now,
            updated_at=now,
        )
        if not await self._db.write(self._add, fork):
            raise ConflictError(
                f"you have a project named {fork.name!r} already",
                code="name_taken",
                hint="Choose another name, or delete that project.",
            )
        reached("fork.recorded")
        made = self._made(source, chosen.id, fork)
        return await self._supervisor.finish(made, name=f"fork {fork.id}")

    def _add(self, connection: Connection, fork: Project) -> bool:
        if not project_rows.add(connection, fork):
            return False
        self._leases.take(connection, fork.id)  # so that this server finds it again
        event_rows.add(
            connection,
            fork.id,
            "project.created",
            fork.created_at,
            reason="forked",
            detail=fork.state_detail,
        )
        return True

    async def _made(self, source: Project, checkpoint_id: str, fork: Project) -> Project:
        try:
            with self._activities.begun(source.id, "fork"):
                rows = await self._db.read(copies.of_project, fork.id)
                await self._archives.checkpoints.fork(
                    place(source), checkpoint_id, place(fork), rows=rows
                )
            await self._archives.claimed(fork)
            reached("fork.claimed")
            await self._db.write(
                project_rows.set_phase,
                fork.id,
                Phase.ARCHIVED,
                self._clock.now(),
                reason="forked",
            )
            reached("fork.confirmed")
        except Exception:
            await self._projects.undo_or_bury(fork)
            raise
        self._metrics.checkpoints.forked()
        self._feed.publish(Change(kind=Kind.PROJECT, id=fork.id, project_id=fork.id))
        log.info("project.forked", project=fork.id, source=source.id, checkpoint=checkpoint_id)
        found = await self._db.read(project_rows.find, fork.id)
        if found is None:
            raise NotFoundError("the fork was deleted already", code="project_unknown")
        return found
