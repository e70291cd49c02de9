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
from anyon.domain.errors import AnyonError, ConflictError, NotFoundError
from anyon.domain.ids import ProjectId, UserId
from anyon.failpoints import reached
from anyon.services.archives import CLAIM_LENGTH
from anyon.services.homes import Homes
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.owners import OwnedElsewhereError, TakeOver
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

    *db* None (for a look only) is an empty one. *state_at* says that *db* is a lost server's own,
    as of that moment: its projects are taken up too, each from the newer of its rows and those of
    its last checkpoint.
    """

    def __init__(
        self,
        *,
        checkpoints: Checkpoints,
        db: Database | None,
        homes: Homes,
        clock: Clock,
        state_at: datetime | None = None,
    ) -> None:
        self._checkpoints = checkpoints
        self._db = db
        self._state_at = state_at
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
                await self._leave(place, error)
        return [*found, *await self._never_saved(found)]

    async def _leave(self, place: str, error: AnyonError) -> None:
        """Keep no rows of a project that is another server's; those of a damaged one are to be seen."""
        project = ProjectId(place.partition("/")[2])
        if self._db is None or self._state_at is None:
            return
        if error.code == OwnedElsewhereError.default_code:
            await self._db.write(project_rows.remove, project)
        elif await self._db.read(project_rows.find, project) is not None:
            await self._db.write(self._settle, project, self._state_at, False)

    async def _never_saved(self, found: list[Recovered]) -> Sequence[Recovered]:
        """Take up the rows of projects of which the store has no files, in the place of an EMPTY in *found*."""
        if self._db is None or self._state_at is None:
            return []
        outcomes = {one.place: one for one in found}
        more = []
        for project in await self._db.read(project_rows.everything):
            place = f"{project.user_id}/{project.id}"
            former = outcomes.get(place)
            if former is not None and former.outcome is not Outcome.EMPTY:
                continue
            if former is not None:
                found.remove(former)
            await self._db.write(self._settle, project.id, self._state_at, False)
            more.append(Recovered(place=place, outcome=Outcome.EMPTY, name=project.name))
        return more

    async def _one(self, place: str, *, is_dry: bool, is_forced: bool) -> Recovered:
        project_id = ProjectId(place.partition("/")[2])
        if self._db is not None:
            present = await self._db.read(project_rows.find, project_id)
            if present is not None and self._state_at is None:
                return Recovered(place=place, outcome=Outcome.PRESENT, name=present.name)
        latest = await self._checkpoints.latest(place)
        if latest is None:
            if not is_dry and self._state_at is not None:
                await self._claim(place, is_forced)
            return Recovered(place=place, outcome=Outcome.EMPTY)
        copy = copies.read(await self._checkpoints.records(place, latest.id))
        if place != f"{copy.user.get('id')}/{copy.project.get('id')}":
            raise copies.RecordsError(f"the rows in {place} are another project's")
        if not is_dry and self._db is not None:
            await self._claim(place, is_forced)
            reached("takeover.claimed")
            latest = (
                await self._checkpoints.latest(place) or latest
            )  # its last save before the claim
            copy = copies.read(await self._checkpoints.records(place, latest.id))
            copy = await self._db.write(self._take_up, copy, latest)
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

    async def _claim(self, place: str, is_forced: bool) -> None:
        take_over = TakeOver.ALWAYS if is_forced else TakeOver.EXPIRED
        await self._checkpoints.claim(place, length=CLAIM_LENGTH, take_over=take_over)

    def _take_up(
        self, connection: Connection, copy: copies.Copy, latest: Checkpoint
    ) -> copies.Copy:
        project = ProjectId(copy.project["id"])
        is_set_up = "system" in latest.roots
        if project_rows.find(connection, project) is not None:
            if self._state_at is not None and self._state_at >= latest.at:
                return self._settle(connection, project, self._state_at, is_set_up)
            project_rows.remove(connection, project)  # the checkpoint's rows are newer
        if copies.name_is_taken(connection, copy):
            raise ConflictError(
                f"there is another project named {copy.project['name']!r} here",
                code="name_taken",
                hint="Rename that one, then recover again.",
            )
        copies.take_up(
            connection,
            copy,
            path=str(self._homes.project(UserId(copy.user["id"]), project)),
            at=latest.at,
            now=self._clock.now(),
            is_set_up=is_set_up,
        )
        return copy

    def _settle(
        self,
        connection: Connection,
        project: ProjectId,
        at: datetime,
        is_set_up: bool,
    ) -> copies.Copy:
        found = project_rows.find(connection, project)
        if found is None:
            raise NotFoundError("there is no such project", code="project_unknown")
        return copies.settle(
            connection,
            project,
            path=str(self._homes.project(found.user_id, project)),
            at=at,
            now=self._clock.now(),
            is_set_up=is_set_up,
        )
