"""The loop that looks at the mounted bucket: mounts it anew, and restarts what shows a dead one."""

from collections.abc import Sequence
from datetime import datetime

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import events as event_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError
from anyon.domain.mounts import MountState
from anyon.engines.engine import ContainerState, Engine
from anyon.services.containers import Containers
from anyon.services.leases import Leases
from anyon.services.mounts import Mounts
from anyon.storage.mounts.mounter import MountInfo

log = structlog.get_logger(__name__)


class MountWatch:
    """Mends the mount, then restarts containers that show its earlier life, one after the other.

    A container's own view of a mount that died never comes back: its binding is of the dead file
    system. Those that something holds awake come first; the others are stopped, and start with
    their next work.
    """

    def __init__(
        self,
        *,
        db: Database,
        engine: Engine,
        mounts: Mounts,
        containers: Containers,
        leases: Leases,
        clock: Clock,
    ) -> None:
        self._db = db
        self._engine = engine
        self._mounts = mounts
        self._containers = containers
        self._leases = leases
        self._clock = clock
        self._told: MountInfo | None = None

    async def tick(self) -> None:
        """Look once, and do what is to be done; what fails is logged and tried again at the next tick."""
        seen = await self._mounts.look()
        await self._tell(seen)
        try:
            found = await self._mounts.mend()
        except AnyonError as error:
            log.warning("mount.mend_failed", code=error.code, error=error.message)
            return
        await self._tell(found)
        if found.state is MountState.ALIVE:
            await self._restart_stale()

    async def _tell(self, seen: MountInfo) -> None:
        """Record a change as an event of each project that has a container up on the mount.

        Another life of it is a change too: somebody's work may have mended it between two looks.
        """
        told, self._told = self._told, seen
        is_first = told is None and seen.state is MountState.ALIVE
        if is_first or (
            told is not None and (told.state, told.device) == (seen.state, seen.device)
        ):
            return
        now = self._clock.now()
        for project in await self._up():
            await self._db.write(_note, project, now, seen)

    async def _up(self) -> Sequence[Project]:
        up = {
            info.project
            for info in await self._engine.list()
            if info.state is not ContainerState.STOPPED
        }
        projects = await self._db.read(project_rows.living)
        return [one for one in projects if one.id in up and self._mounts.covers(one)]

    async def _restart_stale(self) -> None:
        held = {lease.project_id for lease in await self._leases.all_held()}
        for project in sorted(await self._up(), key=lambda one: one.id not in held):
            try:
                is_dropped = await self._containers.drop_stale(project)
                if is_dropped and project.id in held:
                    await self._containers.ensure(project)
            except AnyonError as error:
                log.warning("mount.restart_failed", project=project.id, code=error.code)
                continue
            if is_dropped:
                log.info("container.restarted", project=project.id, reason="mount_lost")


def _note(connection: Connection, project: Project, now: datetime, seen: MountInfo) -> None:
    kind = f"mount.{seen.state}"
    event_rows.add(connection, project.id, kind, now, reason="mount", detail=seen.detail)
