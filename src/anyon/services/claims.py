"""What is claimed and recorded of attempts, each in one transaction; and what their chains are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from sqlalchemy import Connection

from anyon.db import attempts as attempt_rows
from anyon.db import merges as merge_rows
from anyon.db import processes as process_rows
from anyon.db import projects as project_rows
from anyon.db import tasks as task_rows
from anyon.domain import actions, prompts
from anyon.domain.entities import Attempt, Merge, Process, Project, Task
from anyon.domain.errors import ConflictError, NotFoundError
from anyon.domain.ids import AttemptId, PictureId, TaskId, UserId
from anyon.domain.states import RunReason, TaskStatus
from anyon.services import pictures
from anyon.services.launches import Profile


@dataclass(frozen=True, slots=True)
class Found:
    """An attempt that the actor may see, with what it belongs to."""

    attempt: Attempt
    task: Task
    project: Project

    @property
    def worktree(self) -> PurePosixPath:
        """Its path inside; ConflictError (``worktree_deleted``) when it is gone."""
        if self.attempt.worktree is None or self.attempt.worktree_deleted:
            raise ConflictError(
                "the attempt's worktree is gone",
                code="worktree_deleted",
                hint="Start a new attempt.",
            )
        return PurePosixPath(self.attempt.worktree)


def chain(task: Task, project: Project, profile: Profile) -> actions.Action:
    """Return the action of an attempt's first chain: setup script (until it has succeeded once), agent, cleanup script."""
    prompt = prompts.of_task(task.title, task.description, takes_title=profile.agent.takes_title)
    chain = actions.agent(prompt, profile.agent.name, profile.variant, then=cleanup(project))
    if project.setup_script is not None and project.setup_completed_at is None:
        chain = actions.script(project.setup_script, RunReason.SETUPSCRIPT, chain)
    return chain


def cleanup(project: Project) -> actions.Action | None:
    """Return the action of the project's cleanup script, None if it has none."""
    if project.cleanup_script is None:
        return None
    return actions.script(project.cleanup_script, RunReason.CLEANUPSCRIPT)


def running() -> ConflictError:
    """Return the error for what cannot be done while an attempt at the task runs."""
    return ConflictError(
        "an attempt at this task is running",
        code="attempt_running",
        hint="Wait for its end, or stop it first.",
    )


def task_of(connection: Connection, user: UserId, task_id: TaskId) -> tuple[Task, Project]:
    """Return a task and its project; NotFoundError (``task_unknown``)."""
    task = task_rows.get(connection, user, task_id)
    project = None if task is None else project_rows.get(connection, user, task.project_id)
    if task is None or project is None:
        raise NotFoundError("there is no such task", code="task_unknown")
    return task, project


def attempts_of(connection: Connection, user: UserId, task_id: TaskId) -> Sequence[Attempt]:
    """Return a task's attempts, newest first; NotFoundError (``task_unknown``)."""
    task_of(connection, user, task_id)
    return attempt_rows.of_task(connection, user, task_id)


def processes_of(connection: Connection, user: UserId, attempt_id: AttemptId) -> Sequence[Process]:
    """Return an attempt's processes, oldest first; NotFoundError (``attempt_unknown``)."""
    find(connection, user, attempt_id)
    return process_rows.of_attempt(connection, user, attempt_id)


def find(connection: Connection, user: UserId, attempt_id: AttemptId) -> Found:
    """Return an attempt and what it belongs to; NotFoundError (``attempt_unknown``)."""
    attempt = attempt_rows.get(connection, user, attempt_id)
    if attempt is None:
        raise NotFoundError("there is no such attempt", code="attempt_unknown")
    task, project = task_of(connection, user, attempt.task_id)
    return Found(attempt, task, project)


def claim(connection: Connection, attempt: Attempt, first: Process, now: datetime) -> None:
    """Record an attempt and its first process; ConflictError (``attempt_running``) if the task has one that is not over."""
    if task_rows.find(connection, attempt.task_id) is None:
        raise NotFoundError("there is no such task", code="task_unknown")
    if task_rows.is_running(connection, attempt.task_id):
        raise running()
    attempt_rows.add(connection, attempt)
    process_rows.add(connection, first)
    task_rows.set_status(connection, attempt.task_id, TaskStatus.INPROGRESS, now)


def begin(connection: Connection, attempt: Attempt, first: Process) -> bool:
    """Record a claimed attempt's worktree, and the branch and commit that it begins with.

    Say whether its first process is to be started still: it may have been stopped by now.
    """
    changes = {
        "worktree": attempt.worktree,
        "target_branch": attempt.target_branch,
        "updated_at": attempt.updated_at,
    }
    attempt_rows.change(connection, attempt.id, changes)
    head = {"before_head_commit": first.before_head_commit}
    process_rows.change(connection, first.id, head)
    return not process_rows.is_stopping(connection, first.id)


def unclaim(connection: Connection, attempt: Attempt, status: TaskStatus, now: datetime) -> None:
    """Take back a claim whose attempt could not be begun; nothing where there is none."""
    if attempt_rows.find(connection, attempt.id) is None:
        return
    attempt_rows.remove(connection, attempt.id)
    task_rows.set_status(connection, attempt.task_id, status, now, only_from=TaskStatus.INPROGRESS)


def claim_more(
    connection: Connection,
    attempt: Attempt,
    more: Process,
    now: datetime,
    *,
    user: UserId,
    attached: Sequence[PictureId] = (),
) -> None:
    """Record another process of an attempt, and attach *user*'s pictures to its task.

    ConflictError ``attempt_running``, ``worktree_deleted``; NotFoundError ``image_unknown``.
    """
    latest = attempt_rows.find(connection, attempt.id)
    if latest is None:
        raise NotFoundError("there is no such attempt", code="attempt_unknown")
    if latest.worktree_deleted:
        raise ConflictError("the attempt's worktree is gone", code="worktree_deleted")
    if task_rows.is_running(connection, attempt.task_id):
        raise running()
    pictures.attach(connection, user, attempt.task_id, attached)
    process_rows.add(connection, more)
    task_rows.set_status(connection, attempt.task_id, TaskStatus.INPROGRESS, now)


def session_of(connection: Connection, attempt: Attempt) -> str | None:
    """Return the session of the attempt's newest agent run that told one."""
    runs = process_rows.of_task(connection, attempt.task_id)
    mine = [run.session_id for run in runs if run.attempt_id == attempt.id and run.session_id]
    return mine[-1] if mine else None


def record_merge(connection: Connection, attempt: Attempt, merge: Merge) -> None:
    """Record a merge: the task is done."""
    merge_rows.add(connection, merge)
    changes = {"merge_commit": merge.commit, "updated_at": merge.created_at}
    attempt_rows.change(connection, attempt.id, changes)
    task_rows.set_status(connection, attempt.task_id, TaskStatus.DONE, merge.created_at)
