"""The way back from a migration: the former files put in place again, unless work would be lost by it."""

import asyncio
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import attempts as attempt_rows
from anyon.db import events as event_rows
from anyon.db import looks as look_rows
from anyon.db import pictures as picture_rows
from anyon.db import processes as process_rows
from anyon.db import projects as project_rows
from anyon.db import tags as tag_rows
from anyon.db import tasks as task_rows
from anyon.db.databases import Database
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError, ConflictError, NotFoundError
from anyon.domain.states import Phase
from anyon.engines.engine import Engine
from anyon.failpoints import reached
from anyon.services import fingerprints
from anyon.services.homes import Homes
from anyon.services.journals import Journal, Kind, Record, Undoing
from anyon.services.projects import Projects

log = structlog.get_logger(__name__)
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Work done since that a rollback would lose: of which project, and what."""

    project: str
    name: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """One project that was put back. ``state``: restored (its former files), or removed (brought in)."""

    project: str
    name: str
    state: str
    path: str


class Rollbacks:
    """Undoes the last migration of a home that no server uses meanwhile; broken off, it is repeated."""

    def __init__(
        self, *, db: Database, engine: Engine, projects: Projects, homes: Homes, clock: Clock
    ) -> None:
        self._db = db
        self._engine = engine
        self._projects = projects
        self._homes = homes
        self._clock = clock
        self._journal = Journal(homes.home)

    async def kind(self) -> Kind:
        """Return what is undone: what was done last, or is undone in part. NotFoundError ``nothing_to_undo``."""
        undoing = self._journal.undoing()
        if undoing is not None:
            return undoing.kind
        records = self._journal.all()
        kinds = [one.kind for one in records if one.kind is not Kind.TO_DISK]
        if kinds:
            return kinds[0]
        if await self._db.read(_has_brought_in):
            return Kind.FROM_LAYOUT  # cut off before the first project was whole
        raise NotFoundError(
            "nothing was migrated here, or all of it was undone",
            code="nothing_to_undo",
            hint="Back from the bucket to the disk, with all work: anyon migrate to-checkpoints",
        )

    async def lost(self, kind: Kind) -> Sequence[Lost]:
        """Return the work done since the migration that its undoing would lose."""
        found: list[Lost] = []
        for project, record in await self._concerned(kind):
            words = await self._since(project, record, kind)
            if words:
                found.append(Lost(project=project.id, name=project.name, words=words))
        if kind is Kind.FROM_LAYOUT:
            changed = await self._db.read(tag_rows.brought_in, only_changed=True)
            words = "this tag was changed since"
            found += [Lost(project="", name=tag.name, words=words) for tag in changed]
        return found

    async def run(
        self,
        kind: Kind,
        *,
        tell: Callable[[int, int, str], None] = lambda *_: None,
    ) -> Sequence[Undone]:
        """Undo the migration, whatever would be lost; *tell* hears (number, of how many, name) before each.

        Return all that was undone, by a former try too. ``finish`` must follow: until then it is
        found, and repeated, as one that is not at its end.
        """
        concerned = await self._concerned(kind)
        before = self._journal.undoing()
        former = {} if before is None else before.projects
        names = {**former, **{project.id: project.name for project, _ in concerned}}
        at = self._clock.now() if before is None else before.at
        self._journal.begin_undoing(Undoing(kind=kind, at=at, projects=names))
        reached("rollback.noted")
        found = await self._undone(kind, set(former) - {project.id for project, _ in concerned})
        for number, (project, record) in enumerate(concerned, 1):
            tell(number, len(concerned), project.name)
            if kind is Kind.FROM_LAYOUT:
                await self._projects.undo(project)
                state, path = "removed", ""
            else:
                state, path = "restored", await self._restored(project, record)
            self._journal.forget(project.id)
            reached("rollback.project_undone")
            found.append(Undone(project=project.id, name=project.name, state=state, path=path))
        if kind is Kind.FROM_LAYOUT:  # last: what is attached to nothing any more goes
            await self._db.write(_take_back)
        return found

    def finish(self) -> None:
        """Note that nothing of it is left to do."""
        self._journal.end_undoing()

    async def _undone(self, kind: Kind, former: Collection[str]) -> list[Undone]:
        """Return what a try that was cut off has undone; a project that was deleted since is none of it."""
        undoing = self._journal.undoing()
        names = {} if undoing is None else undoing.projects
        if kind is Kind.FROM_LAYOUT:
            removed = [one for one in names if one in former]
            return [Undone(project=i, name=names[i], state="removed", path="") for i in removed]
        living = await self._db.read(project_rows.living)
        back = [one for one in living if one.id in former]
        return [
            Undone(project=one.id, name=one.name, state="restored", path=one.path) for one in back
        ]

    async def _concerned(self, kind: Kind) -> Sequence[tuple[Project, Record | None]]:
        living = await self._db.read(project_rows.living)
        if kind is Kind.TO_MOUNT:
            on_mount = [one for one in living if self._homes.is_mounted(one)]
            return [(one, self._journal.read(one.id)) for one in on_mount]
        brought = await self._db.read(event_rows.projects_with, "project.created", "migrated")
        return [(one, self._journal.read(one.id)) for one in living if one.id in brought]

    async def _since(self, project: Project, record: Record | None, kind: Kind) -> str:
        if kind is Kind.TO_MOUNT and (record is None or record.kind is not kind):
            return "it was made on the mount; `anyon migrate to-checkpoints` brings it along"
        words = []
        if kind is Kind.FROM_LAYOUT:
            words += await self._db.read(
                _rows_since, project, None if record is None else record.at
            )
        if record is not None and record.files:
            place = Path(project.path)
            now = fingerprints.work(await asyncio.to_thread(fingerprints.fingerprint, place))
            changed = fingerprints.differing(record.files, now)
            if changed:
                shown = ", ".join(
                    repr(name.decode("utf-8", "replace")) for name in changed[:_SHOWN]
                )
                words.append(f"{len(changed)} files changed, such as {shown}")
        return "; ".join(words)

    async def _restored(self, project: Project, record: Record | None) -> str:
        """Put the former files back in their place, and let the copy go; return the place."""
        if record is None or record.kind is not Kind.TO_MOUNT:
            raise ConflictError(
                f"the project {project.name!r} was made on the mount and has no former files",
                code="no_former_files",
                hint="`anyon migrate to-checkpoints --project NAME` brings it along.",
            )
        await self._engine.remove(project.id)
        await asyncio.to_thread(self._homes.bring_out, record.backup, Path(record.source))
        await self._db.write(_relocate, project, record.source, self._clock.now())
        try:
            await self._homes.require(project)
            await asyncio.to_thread(shutil.rmtree, project.path, ignore_errors=True)
        except AnyonError as error:
            log.warning("rollback.copy_left", project=project.id, code=error.code)
        return record.source


def _has_brought_in(connection: Connection) -> bool:
    """Say whether a migration that was cut off before its first project was whole has left anything."""
    has_projects = bool(event_rows.projects_with(connection, "project.created", "migrated"))
    has_pictures = picture_rows.has_brought_in(connection)
    return has_projects or has_pictures or bool(tag_rows.brought_in(connection))


def _take_back(connection: Connection) -> None:
    picture_rows.take_back(connection)
    tag_rows.take_back(connection)


def _relocate(connection: Connection, project: Project, path: str, now: datetime) -> None:
    project_rows.relocate(connection, project.id, path, now)
    look_rows.forget_all(connection, project.id)
    if project.phase is not Phase.ARCHIVED:
        phase = Phase.STOPPED_UNSAVED
        project_rows.set_phase(connection, project.id, phase, now, reason="rolled_back")
    event_rows.add(connection, project.id, "project.moved", now, reason="rolled_back", detail=path)


def _rows_since(connection: Connection, project: Project, at: datetime | None) -> list[str]:
    """Return what was recorded since *at*; None: since a migration that was cut off, which runs nothing."""
    user = project.user_id
    runs = process_rows.of_project(connection, user, project.id)
    tasks = task_rows.of_project(connection, user, project.id)
    attempts = attempt_rows.of_project(connection, user, project.id)
    counts = {
        "process": len(runs),
        "task": 0 if at is None else sum(one.created_at > at for one in tasks),
        "attempt": 0 if at is None else sum(one.created_at > at for one in attempts),
    }
    return [
        f"{count} {word}{'' if count == 1 else 'es' if word == 'process' else 's'} since"
        for word, count in counts.items()
        if count
    ]
