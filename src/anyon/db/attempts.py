"""Queries on attempts."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from anyon.db.rows import all_of, columns, one_of, values, visible
from anyon.db.schema import attempts
from anyon.domain.entities import Attempt
from anyon.domain.ids import AttemptId, ProjectId, TaskId, UserId

_ALL = select(*columns(Attempt, attempts))
_NEWEST = (attempts.c.created_at.desc(), attempts.c.id)


def add(connection: Connection, attempt: Attempt) -> None:
    """Record an attempt."""
    connection.execute(insert(attempts).values(values(attempt, attempts)))


def get(connection: Connection, user: UserId, attempt: AttemptId) -> Attempt | None:
    """Return one attempt that a user may see."""
    query = _ALL.where(attempts.c.id == attempt, visible(user, attempts.c.project_id))
    return one_of(connection, Attempt, query)


def find(connection: Connection, attempt: AttemptId) -> Attempt | None:
    """Return one attempt, whoever's it is: for the server's own work only."""
    return one_of(connection, Attempt, _ALL.where(attempts.c.id == attempt))


def of_task(connection: Connection, user: UserId, task: TaskId) -> Sequence[Attempt]:
    """Return a task's attempts, newest first."""
    query = _ALL.where(attempts.c.task_id == task, visible(user, attempts.c.project_id))
    return all_of(connection, Attempt, query.order_by(*_NEWEST))


def of_project(connection: Connection, user: UserId, project: ProjectId) -> Sequence[Attempt]:
    """Return a project's attempts, newest first."""
    query = _ALL.where(attempts.c.project_id == project, visible(user, attempts.c.project_id))
    return all_of(connection, Attempt, query.order_by(*_NEWEST))


def newest_of_project(
    connection: Connection, project: ProjectId, *, limit: int
) -> Sequence[Attempt]:
    """Return a project's newest attempts, whoever's they are: for the server's own work only."""
    query = _ALL.where(attempts.c.project_id == project).order_by(*_NEWEST)
    return all_of(connection, Attempt, query.limit(limit))


def change(connection: Connection, attempt: AttemptId, changes: dict[str, Any]) -> None:
    """Change fields of an attempt."""
    connection.execute(update(attempts).where(attempts.c.id == attempt).values(**changes))


def remove(connection: Connection, attempt: AttemptId) -> None:
    """Delete an attempt with its processes."""
    connection.execute(delete(attempts).where(attempts.c.id == attempt))
