"""Use cases on tasks."""

from collections.abc import Sequence
from dataclasses import dataclass

from anyon.domain.actors import Actor
from anyon.domain.entities import Task
from anyon.domain.ids import AttemptId, ProjectId, TaskId
from anyon.domain.states import TaskStatus
from anyon.services.projects import UNSET, Unset


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """What to create; a missing or blank ``title`` is made from the description's first line."""

    project_id: ProjectId
    title: str | None = None
    description: str | None = None
    status: TaskStatus | None = None
    parent_attempt_id: AttemptId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskChanges:
    """What to change; UNSET stays."""

    title: str | Unset = UNSET
    description: str | None | Unset = UNSET
    status: TaskStatus | Unset = UNSET
    parent_attempt_id: AttemptId | None | Unset = UNSET


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

    async def create(self, actor: Actor, new: NewTask) -> TaskView:
        """Record a task; its notice is in the feed before this returns.

        InvalidInputError: ``title_empty`` (no title and no description), ``title_too_long``,
        ``title_has_control_characters``, ``too_long`` (description over 1 MiB).
        """
        raise NotImplementedError

    async def list(self, actor: Actor, project_id: ProjectId) -> Sequence[TaskView]:
        """Return the project's tasks, newest first."""
        raise NotImplementedError

    async def get(self, actor: Actor, task_id: TaskId) -> TaskView:
        """Return one task."""
        raise NotImplementedError

    async def update(self, actor: Actor, task_id: TaskId, changes: TaskChanges) -> TaskView:
        """Change fields and return the task."""
        raise NotImplementedError

    async def delete(self, actor: Actor, task_id: TaskId) -> None:
        """Delete it, its attempts and their worktrees; unmerged work is saved to a hidden ref first.

        ConflictError (``task_running``) while one of its processes runs.
        """
        raise NotImplementedError
