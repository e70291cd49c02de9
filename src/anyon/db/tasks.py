"""Queries on tasks."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from anyon.db.rows import all_of, columns, one_of, values, visible
from anyon.db.schema import IS_OPEN, attempts, processes, tasks
from anyon.domain.entities import Task
from anyon.domain.ids import ProjectId, TaskId, UserId
from anyon.domain.states import ProcessStatus, RunReason, TaskStatus

_ALL = select(*columns(Task, tasks))
CHAIN = (RunReason.SETUPSCRIPT, RunReason.CODINGAGENT, RunReason.CLEANUPSCRIPT)
"""What an attempt's chain is made of; dev servers and commands run beside it."""


def add(connection: Connection, task: Task) -> None:
    """Record a task."""
    connection.execute(insert(tasks).values(values(task, tasks)))


def get(connection: Connection, user: UserId, task: TaskId) -> Task | None:
    """Return one task that a user may see."""
    query = _ALL.where(tasks.c.id == task, visible(user, tasks.c.project_id))
    return one_of(connection, Task, query)


def find(connection: Connection, task: TaskId) -> Task | None:
    """Return one task, whoever's it is: for the server's own work only."""
    return one_of(connection, Task, _ALL.where(tasks.c.id == task))


def of_project(connection: Connection, user: UserId, project: ProjectId) -> Sequence[Task]:
    """Return a project's tasks, newest first."""
    query = _ALL.where(tasks.c.project_id == project, visible(user, tasks.c.project_id))
    return all_of(connection, Task, query.order_by(tasks.c.created_at.desc(), tasks.c.id))


def change(connection: Connection, task: TaskId, changes: dict[str, Any]) -> None:
    """Change fields of a task."""
    connection.execute(update(tasks).where(tasks.c.id == task).values(**changes))


def set_status(
    connection: Connection,
    task: TaskId,
    status: TaskStatus,
    now: datetime,
    *,
    only_from: TaskStatus | None = None,
) -> None:
    """Move a task on the board (only if it stands at *only_from*, where that is given)."""
    query = update(tasks).where(tasks.c.id == task)
    if only_from is not None:
        query = query.where(tasks.c.status == only_from)
    connection.execute(query.values(status=status, updated_at=now))


def remove(connection: Connection, task: TaskId) -> None:
    """Delete a task with its attempts and processes."""
    connection.execute(delete(tasks).where(tasks.c.id == task))


def is_running(connection: Connection, task: TaskId) -> bool:
    """Say whether any process of the task is not over, or its chain is not at its end."""
    query = (
        select(processes.c.id)
        .join(attempts, attempts.c.id == processes.c.attempt_id)
        .where(attempts.c.task_id == task, IS_OPEN)
    )
    return connection.execute(query.limit(1)).first() is not None


def standings(
    connection: Connection, chosen: Sequence[TaskId]
) -> dict[TaskId, tuple[bool, bool, bool, str]]:
    """Return (is in progress, is merged, last one failed, newest agent) of each of *chosen*."""
    found: dict[TaskId, tuple[bool, bool, bool, str]] = {}
    for start in range(0, len(chosen), 500):
        found.update(_standings(connection, chosen[start : start + 500]))
    return found


def _standings(
    connection: Connection, chosen: Sequence[TaskId]
) -> dict[TaskId, tuple[bool, bool, bool, str]]:
    query = select(attempts.c.task_id, attempts.c.agent, attempts.c.merge_commit).where(
        attempts.c.task_id.in_(chosen)
    )
    agents: dict[TaskId, str] = {}
    merged: set[TaskId] = set()
    for task, agent, commit in connection.execute(query.order_by(attempts.c.created_at)):
        agents[task] = agent
        if commit is not None:
            merged.add(task)
    runs = (
        select(attempts.c.task_id, processes.c.status, processes.c.is_open)
        .join(attempts, attempts.c.id == processes.c.attempt_id)
        .where(attempts.c.task_id.in_(chosen), processes.c.run_reason.in_(CHAIN))
        .order_by(processes.c.created_at, processes.c.id)
    )
    running: set[TaskId] = set()
    last: dict[TaskId, ProcessStatus] = {}
    for task, status, is_open in connection.execute(runs):
        last[task] = status
        if is_open:
            running.add(task)
    failed = {ProcessStatus.FAILED, ProcessStatus.KILLED}
    return {
        task: (task in running, task in merged, last.get(task) in failed, agents.get(task, ""))
        for task in chosen
    }
