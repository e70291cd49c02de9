"""Moving a project between the local disk and the mounted bucket: copied, verified, then switched."""

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import events as event_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.actors import Actor
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError, ConflictError, NotAllowedError, NotFoundError
from anyon.domain.ids import LOCAL_USER, ProjectId
from anyon.domain.states import Phase
from anyon.engines.engine import Engine
from anyon.failpoints import reached
from anyon.git.repository import Repositories
from anyon.services import fingerprints, old_layouts, trees
from anyon.services.archives import Archives, is_lost
from anyon.services.containers import Containers
from anyon.services.homes import Homes
from anyon.services.journals import Journal, Kind, Record, Step
from anyon.services.leases import Leases
from anyon.services.supervisors import Supervisor
from anyon.services.views import Views

log = structlog.get_logger(__name__)
_RESTING = frozenset(
    {Phase.RUNNING, Phase.FROZEN, Phase.STOPPED, Phase.STOPPED_UNSAVED, Phase.ARCHIVED}
)


@dataclass(slots=True, kw_only=True)
class Moved:
    """What became of one project. ``state``: moved, or there (it was already)."""

    project: Project
    state: str
    files: int = 0


class Moves:
    """Moves projects, one at a time; the others go on working.

    A user moves their own; the server's operator everybody's, for where files lie is the machine's matter.
    The source stays what the project is until the copy is proven: every file's hash, every
    reference, and git's own check of every object, in a container over the copy. A move that was
    cut off is repeated from the beginning.
    """

    def __init__(
        self,
        *,
        db: Database,
        engine: Engine,
        containers: Containers,
        repositories: Repositories,
        leases: Leases,
        homes: Homes,
        archives: Archives | None,
        supervisor: Supervisor,
        views: Views,
        clock: Clock,
    ) -> None:
        self._db = db
        self._engine = engine
        self._containers = containers
        self._repositories = repositories
        self._leases = leases
        self._homes = homes
        self._archives = archives
        self._supervisor = supervisor
        self._views = views
        self._clock = clock
        self._journal = Journal(homes.home)
        self._turn = asyncio.Lock()

    async def move(self, actor: Actor, project_id: ProjectId, *, to_mount: bool) -> Moved:
        """Move the project's files; it is stopped after it, and starts at its new place with the next work.

        NotAllowedError ``owners_only`` for a member of somebody else's project.
        ConflictError ``project_busy`` (something runs in it), ``project_not_here`` (no local files,
        or another server's), ``move_target_taken``, ``copy_differs``; UnavailableError as
        ``Mounts.require``, and what copying or git says. Then the project is as it was.
        """
        work = self._move(actor, project_id, to_mount=to_mount)
        return await self._supervisor.finish(work, name=f"move of {project_id}")

    async def _move(self, actor: Actor, project_id: ProjectId, *, to_mount: bool) -> Moved:
        async with self._turn, self._containers.lock(project_id):
            project = await self._db.read(_may_move, actor, project_id)
            if self._homes.is_mounted(project) is to_mount:
                return Moved(project=project, state="there")
            await self._check(project)
            if project.phase is Phase.ARCHIVED:
                return await self._readdressed(project, to_mount=to_mount)
            target = await self._target(project, to_mount=to_mount)
            await self._halt(project)
            reached("move.halted")
            return await self._carried(project, target, to_mount=to_mount)

    async def movable(self, actor: Actor) -> Sequence[tuple[Project, bool]]:
        """Return what *actor* may move, each with whether it lies on the mount, the oldest first."""
        found = await self._db.read(_movable, actor)
        return [(project, self._homes.is_mounted(project)) for project in found]

    async def recover(self, project: Project) -> None:
        """Finish or take back what a server that died was moving; once, before the project is used.

        Its container may show the copy, so it goes: the record alone says where the project is.
        """
        record = self._journal.read(project.id)
        if record is None or record.kind is Kind.FROM_LAYOUT:
            return  # what a migration brought in has a source that is not ours
        if project.path == record.source:
            await self._engine.remove(project.id)
            await self._homes.require(replace(project, path=record.target))
            await asyncio.to_thread(shutil.rmtree, record.target, ignore_errors=True)
            self._journal.forget(project.id)
        elif project.path == record.target:
            await self._homes.require(replace(project, path=record.source))
            await asyncio.to_thread(self._homes.put_away, Path(record.source), record.backup)

    async def _readdressed(self, project: Project, *, to_mount: bool) -> Moved:
        """Let a project whose files are in the store only come back to another place."""
        target = await self._target(project, to_mount=to_mount)
        record = Record(
            project=project.id,
            name=project.name,
            kind=Kind.TO_MOUNT if to_mount else Kind.TO_DISK,
            step=Step.DONE,
            source=project.path,
            target=str(target),
            at=self._clock.now(),
        )
        self._journal.write(record)
        await self._db.write(_relocate, project, record, record.at)
        reached("move.readdressed")
        return Moved(project=replace(project, path=str(target)), state="moved")

    async def _check(self, project: Project) -> None:
        if await self._leases.of_work(project.id):
            raise ConflictError(
                "something is running in the project",
                code="project_busy",
                hint="Stop it, or wait, and repeat: a move replaces the files under it.",
            )
        if is_lost(project) or not await self._is_here(project):
            raise ConflictError(
                f"the project's files are not here to be moved (it is {project.phase.value})",
                code="project_not_here",
                hint="Its next work brings them back: `anyon exec PROJECT -- true`, then repeat this.",
            )

    async def _is_here(self, project: Project) -> bool:
        """Say whether its files can be moved; a container that went may have left them here."""
        if project.phase is Phase.ABSENT:
            return await asyncio.to_thread(Path(project.path, ".git").exists)
        return project.phase in _RESTING

    async def _target(self, project: Project, *, to_mount: bool) -> Path:
        """Return an empty place for the copy; what a move that was cut off has left there goes."""
        place = self._homes.mounted if to_mount else self._homes.local
        target = place(project.user_id, project.id)
        if not to_mount:
            self._homes.unlink()
        moved = replace(project, path=str(target))
        await self._homes.require(moved)
        await self._homes.require(project)
        before = self._journal.read(project.id)
        is_left = before is not None and before.target == str(target)
        if target.exists() and is_left:
            await asyncio.to_thread(shutil.rmtree, target)
        if target.exists():
            raise ConflictError(
                f"there is something at {target} already",
                code="move_target_taken",
                hint="Look at what it is, and move it away; it is not overwritten.",
            )
        return target

    async def _halt(self, project: Project) -> None:
        if self._archives is not None:
            # What is installed in its container, too: the next one is made from this.
            await self._archives.save(project, reason="asked")
        await self._containers.rest(project.id)

    async def _carried(self, project: Project, target: Path, *, to_mount: bool) -> Moved:
        kind = Kind.TO_MOUNT if to_mount else Kind.TO_DISK
        source = Path(project.path)
        known = self._journal.read(project.id)
        record = Record(
            project=project.id,
            name=project.name,
            kind=kind,
            step=Step.COPYING,
            source=str(source),
            target=str(target),
            at=self._clock.now(),
            modes=await asyncio.to_thread(fingerprints.modes, source)
            if to_mount
            else (known.modes if known else {}),
        )
        self._journal.write(record)
        reached("move.noted")
        moved = replace(project, path=str(target))
        try:
            files = await self._copied(source, target, record.modes, to_mount=to_mount)
            await self._proven(project, moved, to_mount=to_mount)
            reached("move.proven")
            final = fingerprints.work(await asyncio.to_thread(fingerprints.fingerprint, target))
        except (AnyonError, OSError) as error:
            await self._undone(project, target)
            if isinstance(error, OSError):
                raise trees.explained(error, f"moving {source}") from error
            raise
        await self._switch(project, record, final)
        return Moved(project=moved, state="moved", files=files)

    async def _copied(
        self, source: Path, target: Path, modes: Mapping[str, int], *, to_mount: bool
    ) -> int:
        """Copy, let the bucket have it all, and compare every file's content; return how many there are."""
        await asyncio.to_thread(self._homes.prepare, target, to_mount=to_mount)
        await asyncio.to_thread(trees.copy_tree, source, target, owner=self._homes.owner(target))
        reached("move.copied")
        if to_mount:
            await self._homes.bucket.settle()
        else:
            await asyncio.to_thread(fingerprints.set_modes, target, modes)
        before = await asyncio.to_thread(fingerprints.fingerprint, source)
        after = await asyncio.to_thread(fingerprints.fingerprint, target)
        wrong = fingerprints.differing(before, after)
        if wrong:
            raise ConflictError(
                f"{os.fsdecode(wrong[0])!r} is not the same in the copy ({len(wrong)} differ)",
                code="copy_differs",
                hint="Nothing was changed. Does something on the host write to the project?",
            )
        return len(after)

    async def _proven(self, project: Project, moved: Project, *, to_mount: bool) -> None:
        """Let git read every object in a container over the copy, and fit its settings to the place."""
        refs = await asyncio.to_thread(old_layouts.refs, Path(project.path))
        await self._engine.remove(project.id)
        await self._containers.start_stopped(moved, is_there=False)
        reached("move.copy_started")
        repository = self._repositories.of(project.id)
        await repository.check_objects()
        found = await repository.refs()
        lost = [name for name, commit in refs.items() if found.get(name) != commit]
        if lost:
            raise ConflictError(
                f"references are not the same: {', '.join(lost)}", code="copy_differs"
            )
        if to_mount:
            await repository.fit_to_mount()
        else:
            await repository.fit_to_disk()
        is_new = project.phase is Phase.RUNNING
        await self._views.foresee(project, anew=is_new, is_stopping=True)
        await self._containers.rest(project.id)
        if to_mount:
            await self._homes.bucket.settle()

    async def _undone(self, project: Project, target: Path) -> None:
        """Leave nothing of a move that failed: the project is where it was, with a container for that place."""
        log.warning("project.move_failed", project=project.id)
        await self._containers.rest(project.id)
        await self._engine.remove(project.id)
        await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
        self._journal.forget(project.id)
        await self._containers.record(project.id, Phase.STOPPED_UNSAVED, reason="move_failed")

    async def _switch(
        self, project: Project, record: Record, final: fingerprints.Fingerprint
    ) -> None:
        """Make the copy the project; then put the former files away, or let the bucket's go."""
        to_mount = record.kind is Kind.TO_MOUNT
        backup = str(self._homes.backup(project)) if to_mount else ""
        done = replace(record, step=Step.DONE, files=final, backup=backup)
        now = self._clock.now()
        self._journal.write(done)
        reached("move.end_noted")
        await self._db.write(_relocate, project, record, now)
        reached("move.recorded")
        await self._containers.record(project.id, Phase.STOPPED_UNSAVED, reason="moved")
        reached("move.unsaved_recorded")
        await asyncio.to_thread(self._homes.put_away, Path(record.source), backup)
        reached("move.source_put_away")
        log.info("project.moved", project=project.id, to=record.kind)


def _relocate(connection: Connection, project: Project, record: Record, now: datetime) -> None:
    project_rows.relocate(connection, project.id, record.target, now)
    event_rows.add(
        connection, project.id, "project.moved", now, reason=record.kind, detail=record.target
    )


def _movable(connection: Connection, actor: Actor) -> Sequence[Project]:
    if actor.user_id == LOCAL_USER:
        found = project_rows.living(connection)
    else:
        seen = project_rows.of_user(connection, actor.user_id)
        found = [one for one in seen if one.user_id == actor.user_id]
    return sorted(found, key=lambda one: (one.created_at, one.id))


def _may_move(connection: Connection, actor: Actor, project_id: ProjectId) -> Project:
    """Return the project if *actor* may move it: its owner, or the operator; a stranger is told of none."""
    if actor.user_id == LOCAL_USER:
        found = project_rows.find(connection, project_id)
    else:
        found = project_rows.get(connection, actor.user_id, project_id)
    if found is None or found.deleted_at is not None:
        raise NotFoundError("there is no such project", code="project_unknown")
    if actor.user_id not in {LOCAL_USER, found.user_id}:
        raise NotAllowedError(
            "only a project's owner, or the server's operator, moves it", code="owners_only"
        )
    return found
