"""Projects of a lost machine, taken up from the store alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import copies
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.errors import AnyonError, ConflictError
from anyon.domain.ids import ProjectId, UserId
from anyon.failpoints import reached
from anyon.services.archives import CLAIM_LENGTH
from anyon.services.homes import Homes
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.owners import TakeOver
from anyon.storage.records import Checkpoint

log = structlog.get_logger(__name__)


class Outcome(StrEnum):
    """What became of one project of the store."""

    RECOVERED = "recovered"
    PRESENT = "present"
    """Its records are here already; they were left as they are."""
    EMPTY = "empty"
    """It was claimed but never saved."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """One project of the store; ``code`` and ``detail`` say why it failed."""

    place: str
    outcome: Outcome
    name: str = ""
    checkpoint_id: str = ""
    at: datetime | None = None
    age: timedelta | None = None
    tasks: int = 0
    attempts: int = 0
    processes: int = 0
    is_deleted: bool = False
    code: str = ""
    detail: str = ""


class Recoveries:
    """Takes up what the store has and *db* has not; repeatable, and never over existing rows.

    *db* None (for a look only) is an empty one.
    """

    def __init__(
        self, *, checkpoints: Checkpoints, db: Database | None, homes: Homes, clock: Clock
    ) -> None:
        self._checkpoints = checkpoints
        self._db = db
        self._homes = homes
        self._clock = clock

    async def recover(
        self, *, is_dry: bool = False, is_forced: bool = False
    ) -> Sequence[Recovered]:
        """Take up every project; its files come with its next work. A failure costs only its own project.

        A project that another server holds still is left (``owned_elsewhere``) unless *is_forced*,
        which shuts that server out. With *is_dry* nothing is changed, here or in the store.
        """
        found = []
        for place in await self._checkpoints.projects():
            try:
                found.append(await self._one(place, is_dry=is_dry, is_forced=is_forced))
            except AnyonError as error:
                log.warning("project.recovery_failed", project=place, code=error.code)
                found.append(
                    Recovered(
                        place=place, outcome=Outcome.FAILED, code=error.code, detail=error.message
                    )
                )
        return found

    async def _one(self, place: str, *, is_dry: bool, is_forced: bool) -> Recovered:
        project_id = ProjectId(place.partition("/")[2])
        if self._db is not None:
            present = await self._db.read(project_rows.find, project_id)
            if present is not None:
                return Recovered(place=place, outcome=Outcome.PRESENT, name=present.name)
        latest = await self._checkpoints.latest(place)
        if latest is None:
            return Recovered(place=place, outcome=Outcome.EMPTY)
        copy = copies.read(await self._checkpoints.records(place, latest.id))
        if place != f"{copy.user.get('id')}/{copy.project.get('id')}":
            raise copies.RecordsError(f"the rows in {place} are another project's")
        if not is_dry and self._db is not None:
            take_over = TakeOver.ALWAYS if is_forced else TakeOver.EXPIRED
            await self._checkpoints.claim(place, length=CLAIM_LENGTH, take_over=take_over)
            reached("takeover.claimed")
            latest = (
                await self._checkpoints.latest(place) or latest
            )  # its last save before the claim
            copy = copies.read(await self._checkpoints.records(place, latest.id))
            await self._db.write(self._take_up, copy, latest)
            reached("takeover.recorded")
            log.info("project.recovered", project=project_id, checkpoint=latest.id)
        return Recovered(
            place=place,
            outcome=Outcome.RECOVERED,
            name=copy.project["name"],
            checkpoint_id=latest.id,
            at=latest.at,
            age=self._clock.now() - latest.at,
            tasks=len(copy.tasks),
            attempts=len(copy.attempts),
            processes=len(copy.processes),
            is_deleted=copy.is_deleted,
        )

    def _take_up(self, connection: Connection, copy: copies.Copy, latest: Checkpoint) -> None:
        if copies.name_is_taken(connection, copy):
            raise ConflictError(
                f"there is another project named {copy.project['name']!r} here",
                code="name_taken",
                hint="Rename that one, then recover again.",
            )
        user, project = UserId(copy.user["id"]), ProjectId(copy.project["id"])
        copies.take_up(
            connection,
            copy,
            path=str(self._homes.project(user, project)),
            at=latest.at,
            now=self._clock.now(),
            is_set_up="system" in latest.roots,
        )
