"""Deleted projects: listed, brought back within the window, and forgotten after it."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import events as event_rows
from anyon.db import processes as process_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.actors import Actor
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError, ConflictError, NotFoundError
from anyon.domain.ids import ProjectId, UserId
from anyon.domain.states import ExitReason, Phase, ProcessStatus
from anyon.failpoints import reached
from anyon.services.archives import Archives
from anyon.services.feed import Change, Feed, Kind

log = structlog.get_logger(__name__)


class Deletions:
    """What users and the reaper do with tombstones. Only an owner sees them."""

    def __init__(
        self,
        *,
        db: Database,
        archives: Archives | None,
        feed: Feed,
        clock: Clock,
        window: timedelta,
    ) -> None:
        self._db = db
        self._archives = archives
        self._feed = feed
        self._clock = clock
        self._window = window

    async def list(self, actor: Actor) -> Sequence[Project]:
        """Return the actor's deleted projects that are still remembered, the last deleted first."""
        return await self._db.read(project_rows.tombstones, actor.user_id)

    async def undo(self, actor: Actor, project_id: ProjectId) -> None:
        """Make a deleted project one again; its next work brings its files back from the store.

        NotFoundError ``project_unknown``; ConflictError ``name_taken``, ``deletion_running`` (try
        again), ``not_kept`` (this server keeps no checkpoints, so nothing is left of it).
        """
        found = {project.id: project for project in await self.list(actor)}.get(project_id)
        if found is None:
            raise NotFoundError("there is no such deleted project", code="project_unknown")
        if self._archives is None:
            raise ConflictError("this server keeps no checkpoints", code="not_kept")
        if found.phase is not Phase.ABSENT:
            raise ConflictError(
                "the deletion is under way", code="deletion_running", hint="Try again in a moment."
            )
        await self._archives.chosen(found, None)  # there must be something to bring back
        if not await self._db.write(_revive, found, self._clock.now()):
            raise ConflictError(
                f"you have another project named {found.name!r} now",
                code="name_taken",
                hint="Rename or delete that one first.",
            )
        reached("undelete.revived")
        self._feed.publish(Change(kind=Kind.PROJECT, id=project_id, project_id=project_id))

    async def purge(self) -> None:
        """Forget what was deleted before the window: its checkpoints, then its record. Repeatable."""
        for project in await self._db.read(project_rows.expired, self._clock.now() - self._window):
            try:
                if self._archives is not None:
                    await self._archives.forget(project)
                reached("purge.checkpoints_removed")
                await self._db.write(project_rows.remove, project.id)
                reached("purge.record_removed")
            except AnyonError as error:
                log.warning("project.purge_failed", project=project.id, code=error.code)
                continue
            log.info("project.purged", project=project.id)


def _revive(connection: Connection, project: Project, now: datetime) -> bool:
    if not project_rows.revive(connection, project, now):
        return False
    event_rows.add(connection, project.id, "project.undeleted", now, reason="asked", detail="")
    return True


def bury(
    connection: Connection, user: UserId, project_id: ProjectId, now: datetime
) -> Project | None:
    """Make a living project a tombstone, its processes killed ones; None where there is no such."""
    buried = project_rows.bury(connection, user, project_id, now)
    if buried is None:
        return None
    for process in process_rows.open_ones(connection, project=project_id):
        process_rows.ended(
            connection,
            process.id,
            status=ProcessStatus.KILLED,
            code=None,
            reason=ExitReason.KILLED_BY_USER,
            at=now,
            now=now,
        )
        process_rows.close(connection, process.id, now)
    event_rows.add(connection, project_id, "project.deleted", now, reason="deleted_by_user")
    return buried
