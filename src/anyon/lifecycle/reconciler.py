"""The loop that looks at every project: polling is the truth, events would only be hints."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

import structlog

from anyon.clock import Clock
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.entities import Lease, Project
from anyon.domain.errors import AnyonError
from anyon.domain.ids import ProjectId
from anyon.domain.life import Facts, Tiers, next_step
from anyon.domain.repairs import repair
from anyon.domain.states import Phase
from anyon.engines.engine import Engine
from anyon.services.leases import Leases
from anyon.services.steps import SEEN, Steps
from anyon.telemetry import Metrics

log = structlog.get_logger(__name__)


class Reconciler:
    """Finds the projects that need a step, from one look at the engine, and takes their steps.

    The look is cheap and without locks; a project that seems to need a step is looked at again
    under its lock. One that fails costs only itself its step: it is tried again at the next tick.
    """

    def __init__(
        self,
        *,
        db: Database,
        engine: Engine,
        steps: Steps,
        leases: Leases,
        clock: Clock,
        tiers: Tiers,
        at_once: int = 4,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._db = db
        self._engine = engine
        self._steps = steps
        self._leases = leases
        self._clock = clock
        self._tiers = tiers
        self._at_once = at_once

    async def tick(self) -> None:
        """Look at every project once."""
        places = asyncio.Semaphore(self._at_once)

        async def take(project_id: ProjectId) -> None:
            async with places:
                await self._take(project_id)

        async with asyncio.TaskGroup() as group:
            for project_id in await self._in_need():
                group.create_task(take(project_id))

    async def _in_need(self) -> Sequence[ProjectId]:
        projects = await self._db.read(project_rows.living)
        seen = {info.project: SEEN[info.state] for info in await self._engine.list()}
        now = self._clock.now()
        leases: dict[ProjectId, list[Lease]] = {}
        for lease in await self._leases.all_held():
            leases.setdefault(lease.project_id, []).append(lease)
        return [
            project.id
            for project in projects
            if needs_step(
                project,
                seen=seen.get(project.id, Phase.ABSENT),
                leases=leases.get(project.id, ()),
                tiers=self._tiers,
                now=now,
            )
        ]

    async def _take(self, project_id: ProjectId) -> None:
        try:
            decision = await self._steps.take(project_id)
        except AnyonError as error:
            self._metrics.step_failed()
            log.warning(
                "project.step_failed", project=project_id, code=error.code, error=str(error)
            )
            return
        if decision is not None:
            log.info(
                "project.stepped", project=project_id, step=decision.step, reason=decision.reason
            )


def needs_step(
    project: Project, *, seen: Phase, leases: Sequence[Lease], tiers: Tiers, now: datetime
) -> bool:
    """Say whether the record disagrees with what is *seen*, or a step is due or unfinished."""
    if project.phase is Phase.ARCHIVING or repair(project.phase, seen) is not None:
        return True
    facts = Facts(phase=project.phase, leases=leases)
    return next_step(project, facts=facts, tiers=tiers, now=now) is not None
