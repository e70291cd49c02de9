"""Use cases on projects: create, look, change, delete."""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import events as event_rows
from anyon.db import projects as project_rows
from anyon.db import users as user_rows
from anyon.db.databases import Database
from anyon.domain import names
from anyon.domain.actors import Actor
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError, ConflictError, InvalidInputError, NotFoundError
from anyon.domain.ids import LOCAL_USER, ProjectId, UserId, new_id
from anyon.domain.states import Phase
from anyon.failpoints import reached
from anyon.git.names import check_clone_url, copy_patterns
from anyon.git.repository import Branch, Repositories
from anyon.services.archives import FORKING, Archives, place
from anyon.services.containers import Containers
from anyon.services.deletions import bury
from anyon.services.feed import Change, Feed, Kind
from anyon.services.homes import Homes
from anyon.services.imports import Imports
from anyon.services.launches import Launches
from anyon.services.leases import Leases
from anyon.services.runs import Runs
from anyon.services.supervisors import Supervisor
from anyon.services.views import Views

log = structlog.get_logger(__name__)
_MAY_BE_STORED = frozenset({FORKING, "creating_deadline"})
ERASE_PAUSE = timedelta(seconds=15)
"""How long to wait before a deletion that failed is tried again."""

LONGEST_IDLE = 3650 * 86400


class Unset:
    """The type of UNSET."""


UNSET = Unset()
"""A field of a change that stays as it is; None empties the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProject:
    """What to create.

    ``git_repo_path`` empty makes a new repository; a path imports (copies) that local directory,
    history included. ``clone_url`` is cloned inside the container instead.
    """

    name: str
    git_repo_path: str = ""
    clone_url: str | None = None
    image: str | None = None
    default_agent: str | None = None
    setup_script: str | None = None
    dev_script: str | None = None
    cleanup_script: str | None = None
    copy_files: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectChanges:
    """What to change; UNSET stays. A changed setup script is run again at the next attempt.

    Idle times are seconds; None is the server's, 0 never.
    """

    name: str | Unset = UNSET
    default_agent: str | Unset | None = UNSET
    setup_script: str | Unset | None = UNSET
    dev_script: str | Unset | None = UNSET
    cleanup_script: str | Unset | None = UNSET
    copy_files: str | Unset | None = UNSET
    freeze_after: int | Unset | None = UNSET
    stop_after: int | Unset | None = UNSET
    archive_after: int | Unset | None = UNSET


class Projects:
    """What users do with projects. A foreign or unknown id is NotFoundError (``project_unknown``)."""

    def __init__(
        self,
        *,
        db: Database,
        containers: Containers,
        repositories: Repositories,
        launches: Launches,
        leases: Leases,
        runs: Runs,
        homes: Homes,
        archives: Archives | None,
        imports: Imports,
        feed: Feed,
        clock: Clock,
        supervisor: Supervisor,
        views: Views,
    ) -> None:
        self._db = db
        self._containers = containers
        self._repositories = repositories
        self._launches = launches
        self._leases = leases
        self._runs = runs
        self._homes = homes
        self._archives = archives
        self._imports = imports
        self._feed = feed
        self._clock = clock
        self._supervisor = supervisor
        self._views = views

    async def create(self, actor: Actor, new: NewProject) -> Project:
        """Make the project, its directories, its container (RUNNING) and its repository.

        On failure nothing is left behind: no record, container or directory. InvalidInputError:
        ``name_empty``, ``name_too_long``, ``name_has_control_characters``, ``name_path_like``,
        ``path_not_absolute``, ``path_missing``, ``path_inside_home``, ``not_a_repository``,
        ``special_file``, ``bad_clone_url``, ``two_sources``, ``too_long``. NotAllowedError:
        ``import_not_allowed``. ConflictError: ``name_taken``. MissingError: ``git_missing``,
        ``image_missing``. UnavailableError: ``disk_full``.
        """
        source = await self._source(new)
        project = self._record_of(actor, new)
        if not await self._db.write(self._add, project):
            raise _name_taken(project.name)
        reached("create.recorded")
        made = self._make(project, source, new.clone_url)
        return await self._supervisor.finish(made, name=f"creation of {project.id}")

    async def _source(self, new: NewProject) -> Path | None:
        names.project_name(new.name)
        if new.clone_url is not None:
            check_clone_url(new.clone_url)
            if new.git_repo_path:
                raise InvalidInputError(
                    "give a path or a clone URL, not both",
                    code="two_sources",
                    hint="Leave git_repo_path empty to clone.",
                )
        if not new.git_repo_path:
            return None
        return await asyncio.to_thread(self._imports.checked, new.git_repo_path)

    def _record_of(self, actor: Actor, new: NewProject) -> Project:
        now = self._clock.now()
        project_id = ProjectId(new_id())
        agent = None if new.default_agent is None else self._launches.agent(new.default_agent).name
        return Project(
            id=project_id,
            user_id=actor.user_id,
            name=names.project_name(new.name),
            path=str(self._homes.project(actor.user_id, project_id)),
            image=None if new.image is None else names.image(new.image),
            default_agent=agent,
            setup_script=names.script(new.setup_script, "the setup script"),
            dev_script=names.script(new.dev_script, "the dev script"),
            cleanup_script=names.script(new.cleanup_script, "the cleanup script"),
            copy_files=_copy_files(new.copy_files),
            phase=Phase.CREATING,
            state_reason="created",
            phase_since=now,
            last_active_at=now,
            created_at=now,
            updated_at=now,
        )

    def _add(self, connection: Connection, project: Project) -> bool:
        name = "local" if project.user_id == LOCAL_USER else project.user_id
        user_rows.ensure(connection, project.user_id, name, project.created_at)
        if not project_rows.add(connection, project):
            return False
        self._leases.take(connection, project.id)  # so that this server finds it again
        now = project.created_at
        event_rows.add(connection, project.id, "project.created", now, reason="created")
        return True

    async def _make(self, project: Project, source: Path | None, clone_url: str | None) -> Project:
        try:
            await self._homes.make(project)
            reached("create.directories_made")
            if source is not None:
                await self._homes.fill(project, source)
                reached("create.files_copied")
            async with self._containers.creating(project):
                reached("create.container_up")
                repository = self._repositories.of(project.id)
                await repository.check_git()
                if source is not None:
                    await repository.prepare_imported()
                elif clone_url is not None:
                    await repository.clone(clone_url)
                    await repository.prepare_imported()
                else:
                    await repository.init()
                if self._homes.is_mounted(project):
                    await repository.fit_to_mount()
                reached("create.repository_made")
            await self._containers.record(project.id, Phase.RUNNING, reason="created")
            reached("create.confirmed")
        except Exception as error:
            log.warning("project.creation_failed", project=project.id, error=repr(error))
            await self.undo_or_bury(project)
            raise
        log.info("project.created", project=project.id)
        return await self._db.read(_found, project.user_id, project.id)

    async def undo_or_bury(self, project: Project) -> None:
        """Take back a creation; where that fails for now, hide it and try until it is done."""
        try:
            await self.undo(project)
        except AnyonError as error:
            log.warning("project.undo_failed", project=project.id, error=str(error))
            await self._db.write(bury, project.user_id, project.id, self._clock.now())
            self._erase_in_background(project)

    async def undo(self, project: Project) -> None:
        """Take back a creation that was not finished: container, files, record. May be repeated."""
        await self._containers.remove(project.id)
        reached("create_undo.container_removed")
        await self._homes.discard(project)
        reached("create_undo.files_discarded")
        if self._archives is not None and project.state_reason in _MAY_BE_STORED:
            # Of a fork there may be something in the store already; of other creations never.
            await self._archives.checkpoints.delete(place(project))
        await self._db.write(project_rows.remove, project.id)
        reached("create_undo.record_removed")
        self._publish(project.id)
        self._supervisor.spawn(self._homes.empty_trash(), name="trash")

    async def list(self, actor: Actor) -> Sequence[Project]:
        """Return the actor's projects, newest first; never wakes one."""
        return await self._db.read(project_rows.of_user, actor.user_id)

    async def get(self, actor: Actor, project_id: ProjectId) -> Project:
        """Return one project."""
        return await self._db.read(_found, actor.user_id, project_id)

    async def update(self, actor: Actor, project_id: ProjectId, changes: ProjectChanges) -> Project:
        """Change fields and return the project; ConflictError (``name_taken``)."""
        project = await self.get(actor, project_id)
        wanted = self._checked(changes)
        if wanted.get("setup_script", project.setup_script) != project.setup_script:
            wanted["setup_completed_at"] = None
        wanted["updated_at"] = self._clock.now()
        if not await self._db.write(project_rows.change, actor.user_id, project_id, wanted):
            raise _name_taken(wanted["name"])
        self._publish(project_id)
        return await self.get(actor, project_id)

    def _checked(self, changes: ProjectChanges) -> dict[str, Any]:
        wanted: dict[str, Any] = {}
        for field in fields(changes):
            value = getattr(changes, field.name)
            if value is UNSET:
                continue
            if field.name == "name":
                value = names.project_name(value)
            elif field.name == "copy_files":
                value = _copy_files(value)
            elif field.name == "default_agent":
                value = None if value is None else self._launches.agent(value).name
            elif field.name.endswith("_after"):
                value = _idle_time(value)
            else:
                value = names.script(value, f"the {field.name.replace('_', ' ')}")
            wanted[field.name] = value
        return wanted

    async def delete(self, actor: Actor, project_id: ProjectId) -> None:
        """End what runs, remove the container, files go by way of the trash; the name is free at once.

        When a part of that fails it is raised, and tried again in the background until it is done.
        """
        project = await self.get(actor, project_id)
        if project.phase is Phase.CREATING:
            raise ConflictError(
                "the project is being created",
                code="project_creating",
                hint="Wait until it is there, then delete it.",
            )
        await self._leases.claim(project_id)
        buried = await self._db.write(bury, actor.user_id, project_id, self._clock.now())
        if buried is None:
            raise _unknown()
        reached("delete.tombstoned")
        self._publish(project_id)
        await self.erase_or_later(buried)

    async def erase_or_later(self, project: Project) -> None:
        """Erase the project; what fails is raised, and tried again in the background."""
        try:
            await self._supervisor.finish(self.erase(project), name=f"deletion of {project.id}")
        except AnyonError:
            self._erase_in_background(project)
            raise

    async def erase(self, project: Project) -> None:
        """Do what a tombstone asks for: runs, container and files go. May be repeated.

        The last state is confirmed in the store before anything goes: deletion can be undone.
        """
        await self._runs.abandon(project.id)
        reached("delete.processes_abandoned")
        if self._archives is not None:
            await self._containers.halt(project.id)
            reached("delete.container_stopped")
            await self._archives.confirm(project, reason="delete")
            reached("delete.state_confirmed")
        async with self._archives.still(project) if self._archives else nullcontext():
            await self._containers.remove(project.id)
        reached("delete.container_removed")
        await self._homes.discard(project)
        reached("delete.files_discarded")
        await self._db.write(
            project_rows.set_phase,
            project.id,
            Phase.ABSENT,
            self._clock.now(),
            reason="deleted_by_user",
        )
        reached("delete.confirmed")
        log.info("project.deleted", project=project.id)
        self._supervisor.spawn(self._homes.empty_trash(), name="trash")

    def _erase_in_background(self, project: Project) -> None:
        self._supervisor.spawn(self._erase_until_done(project), name=f"deletion of {project.id}")

    async def _erase_until_done(self, project: Project) -> None:
        while True:
            await self._clock.sleep(ERASE_PAUSE)
            try:
                return await self.erase(project)
            except AnyonError as error:
                log.warning("project.deletion_failed", project=project.id, error=str(error))

    async def branches(self, actor: Actor, project_id: ProjectId) -> Sequence[Branch]:
        """Return the repository's branches: the current one first, then the newest; wakes nothing."""
        return await self._views.branches(await self.get(actor, project_id))

    def _publish(self, project_id: ProjectId) -> None:
        self._feed.publish(Change(kind=Kind.PROJECT, id=project_id, project_id=project_id))


def _idle_time(length: int | None) -> int | None:
    if length is not None and not 0 <= length <= LONGEST_IDLE:
        raise InvalidInputError(
            "an idle time is between 0 and 3650 days", code="bad_length", hint="0 is never."
        )
    return length


def _copy_files(raw: str | None) -> str | None:
    copy_patterns(raw)
    return names.script(raw, "the list of files to copy")


def _name_taken(name: str) -> ConflictError:
    return ConflictError(
        f"you have a project named {name!r} already",
        code="name_taken",
        hint="Choose another name, or delete that project.",
    )


def _unknown() -> NotFoundError:
    return NotFoundError("there is no such project", code="project_unknown")


def _found(connection: Connection, user: UserId, project_id: ProjectId) -> Project:
    project = project_rows.get(connection, user, project_id)
    if project is None:
        raise _unknown()
    return project
