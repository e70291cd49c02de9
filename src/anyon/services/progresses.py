"""How far saves and restores are that take long: for whoever asks; saves also among the project's events."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial

import structlog

from anyon.clock import Clock
from anyon.db import events as event_rows
from anyon.db.databases import Database
from anyon.domain.errors import AnyonError
from anyon.domain.ids import ProjectId
from anyon.services.activities import WAKE, Activities
from anyon.storage.saves import Progress

log = structlog.get_logger(__name__)

EVERY = timedelta(seconds=15)
"""How often a save that takes long says how far it is."""


class Progresses:
    """The saves under way; ``activities`` are all that goes on with projects in the store."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._under_way: dict[ProjectId, Progress] = {}
        self.activities = Activities(clock)

    @property
    def under_way(self) -> Mapping[ProjectId, Progress]:
        """How far each save is that goes on now."""
        return self._under_way

    @contextmanager
    def waking(self, project: ProjectId) -> Iterator[Callable[[int, int], None]]:
        """Give what a restore tells its progress to (done, of how many bytes) that work waits for."""
        with self.activities.begun(project, WAKE) as activity:
            yield activity.progress

    @asynccontextmanager
    async def telling(
        self, project: ProjectId, reason: str
    ) -> AsyncIterator[Callable[[Progress], None]]:
        """Give what a save tells its progress to; ``checkpoint.progress`` is recorded now and then."""
        teller = asyncio.create_task(self._tell(project, reason), name=f"progress {project}")
        try:
            yield partial(self._under_way.__setitem__, project)
        finally:
            teller.cancel()
            await asyncio.gather(teller, return_exceptions=True)
            self._under_way.pop(project, None)

    async def _tell(self, project: ProjectId, reason: str) -> None:
        while True:
            await self._clock.sleep(EVERY)
            at = self._under_way.get(project)
            if at is None:
                continue
            of = f" of about {at.total_bytes}" if at.total_bytes else ""
            detail = (
                f"{at.files} files, {at.read_bytes}{of} bytes read, {at.new_bytes} bytes stored"
            )
            now = self._clock.now()
            try:
                await self._db.write(
                    event_rows.add,
                    project,
                    "checkpoint.progress",
                    now,
                    reason=reason,
                    detail=detail,
                )
            except AnyonError as error:  # the save itself goes on
                log.warning("checkpoint.progress_not_kept", project=project, code=error.code)
