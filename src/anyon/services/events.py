"""How long events are kept: the last of each project always, older ones for a time that is set."""

import asyncio
from datetime import timedelta
from functools import partial

import structlog

from anyon.clock import Clock
from anyon.db import events as event_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.telemetry import Metrics

log = structlog.get_logger(__name__)
LAST = 1000
"""How many of a project's events stay however old they are."""
BATCH = 500
"""How many go in one transaction: nobody's write waits longer than a few milliseconds for it."""


class EventRetention:
    """Removes the events of this server's projects that are older than *keep*; 0 removes none."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        metrics: Metrics,
        server_id: str,
        keep: timedelta,
        last: int = LAST,
        batch: int = BATCH,
    ) -> None:
        self._db = db
        self._clock = clock
        self._metrics = metrics
        self._server_id = server_id
        self._keep = keep
        self._last = last
        self._batch = batch

    async def tick(self) -> None:
        """Remove what is due, in batches, one project after the other. Repeatable."""
        if not self._keep:
            return
        for project in await self._db.read(project_rows.of_server, self._server_id):
            prune = partial(
                event_rows.prune,
                before=self._clock.now() - self._keep,
                keep=self._last,
                at_most=self._batch,
            )
            removed = 0
            while count := await self._db.write(prune, project.id):
                removed += count
                self._metrics.database.pruned(count)
                await asyncio.sleep(0)  # others' writes come in between
            if removed:
                log.info("events.pruned", project=project.id, count=removed)
