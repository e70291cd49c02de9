"""Use cases on tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import attempts as attempt_rows
from anyon.db import processes as process_rows
from anyon.db import projects as project_rows
from anyon.db import tasks as task_rows
from anyon.db.databases import Database
from anyon.domain import names
from anyon.domain.actors import Actor
from anyon.domain.entities import Attempt, Process, Project, Task
from anyon.domain.errors import ConflictError, NotFoundError
from anyon.domain.ids import AttemptId, PictureId, ProjectId, TaskId, UserId, new_id
from anyon.domain.states import TaskStatus
from anyon.git.repository import Repositories
from anyon.processes.processes import Processes
from anyon.services import pictures
from anyon.services.containers import Containers
from anyon.services.feed import Change, Feed, Kind
from anyon.services.projects import UNSET, Unset
from anyon.services.supervisors import Supervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """What to create; a missing or blank ``title`` is made from the description's first line."""

    project_id: ProjectId
    title: str | None = None
    description: str | None = None
    status: TaskStatus | None = None
    parent_attempt_id: AttemptId | None = None
    picture_ids: Sequence[PictureId] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskChanges:
    """What to change; UNSET stays. ``picture_ids`` are attached instead of those that are."""

    title: str | Unset = UNSET
    description: str | Unset | None = UNSET
    status: TaskStatus | Unset = UNSET
    parent_attempt_id: AttemptId | Unset | None = UNSET
    picture_ids: Sequence[PictureId] | Unset = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """A task and how its attempts stand.

    ``has_in_progress_attempt``: a setup, cleanup or agent process runs. ``last_attempt_failed``:
    the newest process that is not a dev server failed or was killed. ``executor`` is the newest
    attempt's agent, empty when there is none.
    """

    task: Task
    has_in_progress_attempt: bool
    has_merged_attempt: bool
    last_attempt_failed: bool
    executor: str


class Tasks:
    """What users do with tasks. A foreign or unknown id is NotFoundError (``task_unknown``)."""

    def __init__(
        self,
        *,
        db: Database,
        processes: Processes,
        containers: Containers,
        repositories: Repositories,
        feed: Feed,
        clock: Clock,
        supervisor: Supervisor,
    ) -> None:
        self._db = db
        self._processes = processes
        self._containers = containers
        self._repositories = repositories
        self._feed = feed
        self._clock = clock
        self._supervisor = supervisor

    async def create(self, actor: Actor, new: NewTask) -> TaskView:
        """Record a task; its notice is in the feed before this returns.

        NotFoundError: ``project_unknown``, ``attempt_unknown`` (the parent), ``image_unknown``. InvalidInputError:
        ``title_empty`` (no title and no description), ``title_too_long``,
        ``title_has_control_characters``, ``too_long`` (description over 1 MiB), ``has_nul``.
        """
        now = self._clock.now()
        description = _description(new.description)
        task = Task(
            id=TaskId(new_id()),
            project_id=new.project_id,
            title=names.task_title(new.title, description),
            description=description,
            status=new.status or TaskStatus.TODO,
            parent_attempt_id=new.parent_attempt_id,
            created_at=now,
            updated_at=now,
        )
        view = await self._db.write(_add, actor.user_id, task, new.picture_ids)
        self._publish(task)
        return view

    async def list(self, actor: Actor, project_id: ProjectId) -> Sequence[TaskView]:
        """Return the project's tasks, newest first; NotFoundError (``project_unknown``)."""
        return await self._db.read(_list, actor.user_id, project_id)

    async def get(self, actor: Actor, task_id: TaskId) -> TaskView:
        """Return one task."""
        return await self._db.read(_get, actor.user_id, task_id)

    async def update(self, actor: Actor, task_id: TaskId, changes: TaskChanges) -> TaskView:
        """Change fields and return the task; NotFoundError (``image_unknown``) for a foreign picture."""
        wanted: dict[str, Any] = {
            field.name: value
            for field in fields(changes)
            if (value := getattr(changes, field.name)) is not UNSET
        }
        if "description" in wanted:
            wanted["description"] = _description(wanted["description"])
        if "title" in wanted:
            wanted["title"] = names.task_title(wanted["title"], None)
        wanted["updated_at"] = self._clock.now()
        view = await self._db.write(_change, actor.user_id, task_id, wanted)
        self._publish(view.task)
        return view

    async def delete(self, actor: Actor, task_id: TaskId) -> None:
        """Delete it, its attempts and their worktrees; unmerged work is saved to a hidden ref first.

        ConflictError (``task_running``) while one of its processes runs.
        """
        task, project, attempts = await self._db.write(
            _claim_deletion, actor.user_id, task_id, self._clock.now()
        )
        work = self._delete(task, project, attempts)
        await self._supervisor.finish(work, name=f"deletion of {task_id}")

    async def _delete(self, task: Task, project: Project, attempts: Sequence[Attempt]) -> None:
        left = [attempt for attempt in attempts if attempt.worktree is not None]
        if left:
            holder, reason = f"task {task.id}", "cleanup"
            async with self._containers.awake(project, holder=holder, reason=reason):
                for attempt in left:
                    await self._repositories.of(project.id).remove_worktree(
                        attempt.id,
                        PurePosixPath(attempt.worktree or ""),
                        branch=attempt.branch,
                        target=attempt.target_branch,
                    )
        for process in await self._db.write(_remove, task.id):
            await self._processes.forget(project.id, process.id)
        self._publish(task)

    def _publish(self, task: Task) -> None:
        self._feed.publish(Change(kind=Kind.TASK, id=task.id, project_id=task.project_id))


def _description(raw: str | None) -> str | None:
    return None if raw is None else names.text(raw, "the description")


def _views(connection: Connection, tasks: Sequence[Task]) -> Sequence[TaskView]:
    standings = task_rows.standings(connection, [task.id for task in tasks])
    views = []
    for task in tasks:
        in_progress, merged, failed, executor = standings[task.id]
        views.append(
            TaskView(
                task=task,
                has_in_progress_attempt=in_progress,
                has_merged_attempt=merged,
                last_attempt_failed=failed,
                executor=executor,
            )
        )
    return views


def _get(connection: Connection, user: UserId, task_id: TaskId) -> TaskView:
    task = task_rows.get(connection, user, task_id)
    if task is None:
        raise NotFoundError("there is no such task", code="task_unknown")
    return _views(connection, [task])[0]


def _list(connection: Connection, user: UserId, project_id: ProjectId) -> Sequence[TaskView]:
    if project_rows.get(connection, user, project_id) is None:
        raise NotFoundError("there is no such project", code="project_unknown")
    return _views(connection, task_rows.of_project(connection, user, project_id))


def _add(
    connection: Connection, user: UserId, task: Task, attached: Sequence[PictureId]
) -> TaskView:
    if project_rows.get(connection, user, task.project_id) is None:
        raise NotFoundError("there is no such project", code="project_unknown")
    _check_parent(connection, user, task.project_id, task.parent_attempt_id)
    task_rows.add(connection, task)
    pictures.attach(connection, user, task.id, attached)
    return _views(connection, [task])[0]


def _check_parent(
    connection: Connection, user: UserId, project_id: ProjectId, parent: AttemptId | None
) -> None:
    if parent is None:
        return
    attempt = attempt_rows.get(connection, user, parent)
    if attempt is None or attempt.project_id != project_id:
        raise NotFoundError("there is no such attempt in this project", code="attempt_unknown")


def _change(
    connection: Connection, user: UserId, task_id: TaskId, wanted: dict[str, Any]
) -> TaskView:
    task = _get(connection, user, task_id).task
    _check_parent(connection, user, task.project_id, wanted.get("parent_attempt_id"))
    attached: Sequence[PictureId] | None = wanted.pop("picture_ids", None)
    if attached is not None:
        pictures.replace(connection, user, task_id, attached)
    task_rows.change(connection, task_id, wanted)
    return _get(connection, user, task_id)


def _claim_deletion(
    connection: Connection, user: UserId, task_id: TaskId, now: datetime
) -> tuple[Task, Project, Sequence[Attempt]]:
    """Keep all attempts from being followed up from now on, and return what is to be cleaned."""
    task = _get(connection, user, task_id).task
    _refuse_running(connection, task_id)
    project = project_rows.get(connection, user, task.project_id)
    if project is None:
        raise NotFoundError("there is no such project", code="project_unknown")
    attempts = attempt_rows.of_task(connection, user, task_id)
    for attempt in attempts:
        changes = {"worktree_deleted": True, "updated_at": now}
        attempt_rows.change(connection, attempt.id, changes)
    return task, project, attempts


def _refuse_running(connection: Connection, task_id: TaskId) -> None:
    if task_rows.is_running(connection, task_id):
        raise ConflictError(
            "the task has running processes",
            code="task_running",
            hint="Wait for them to end, or stop them first.",
        )


def _remove(connection: Connection, task_id: TaskId) -> Sequence[Process]:
    _refuse_running(connection, task_id)
    processes = process_rows.of_task(connection, task_id)
    task_rows.remove(connection, task_id)
    return processes
