"""Queries on processes.

A process is *open* from its record's first moment until all that follows from its end is
recorded too: what is open after a crash is what the server has to take up again.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, or_, select, update

from anyon.db.rows import all_of, columns, one_of, values, visible
from anyon.db.schema import IS_OPEN, attempts, processes
from anyon.domain.entities import Process
from anyon.domain.ids import AttemptId, ProcessId, ProjectId, TaskId, UserId
from anyon.domain.states import ExitReason, ProcessStatus

_ALL = select(*columns(Process, processes))
_OLDEST = (processes.c.created_at, processes.c.id)


def add(connection: Connection, process: Process) -> None:
    """Record a process that is about to be started."""
    row = values(process, processes)
    connection.execute(insert(processes).values(**row, is_open=True, is_stopping=False))


def get(connection: Connection, user: UserId, process: ProcessId) -> Process | None:
    """Return one process that a user may see."""
    query = _ALL.where(processes.c.id == process, visible(user, processes.c.project_id))
    return one_of(connection, Process, query)


def find(connection: Connection, process: ProcessId) -> Process | None:
    """Return one process, whoever's it is: for the server's own work only."""
    return one_of(connection, Process, _ALL.where(processes.c.id == process))


def of_project(connection: Connection, user: UserId, project: ProjectId) -> Sequence[Process]:
    """Return a project's processes, oldest first."""
    query = _ALL.where(processes.c.project_id == project, visible(user, processes.c.project_id))
    return all_of(connection, Process, query.order_by(*_OLDEST))


def of_attempt(connection: Connection, user: UserId, attempt: AttemptId) -> Sequence[Process]:
    """Return an attempt's processes, oldest first."""
    query = _ALL.where(processes.c.attempt_id == attempt, visible(user, processes.c.project_id))
    return all_of(connection, Process, query.order_by(*_OLDEST))


def of_task(connection: Connection, task: TaskId) -> Sequence[Process]:
    """Return all processes of a task's attempts: for the server's own work only."""
    query = _ALL.join(attempts, attempts.c.id == processes.c.attempt_id)
    return all_of(connection, Process, query.where(attempts.c.task_id == task).order_by(*_OLDEST))


def open_ones(
    connection: Connection,
    *,
    project: ProjectId | None = None,
    attempt: AttemptId | None = None,
) -> Sequence[Process]:
    """Return everybody's open processes (of one project or attempt), oldest first."""
    query = _ALL.where(IS_OPEN)
    if project is not None:
        query = query.where(processes.c.project_id == project)
    if attempt is not None:
        query = query.where(processes.c.attempt_id == attempt)
    return all_of(connection, Process, query.order_by(*_OLDEST))


def recent(connection: Connection, since: datetime, *, most: int = 500) -> Sequence[Process]:
    """Return everybody's processes that run, or ended after *since*; the newest of very many."""
    runs = processes.c.status == ProcessStatus.RUNNING
    query = _ALL.where(or_(runs, processes.c.completed_at >= since))
    newest = (processes.c.created_at.desc(), processes.c.id)
    return all_of(connection, Process, query.order_by(*newest).limit(most))


def is_stopping(connection: Connection, process: ProcessId) -> bool:
    """Say whether the process must not be started nor followed by another."""
    query = select(processes.c.is_stopping).where(processes.c.id == process)
    return bool(connection.execute(query).scalar())


def stop(connection: Connection, process: ProcessId, now: datetime) -> None:
    """Ask for the end of an open process."""
    connection.execute(
        update(processes)
        .where(processes.c.id == process, IS_OPEN)
        .values(is_stopping=True, updated_at=now)
    )


def ended(
    connection: Connection,
    process: ProcessId,
    *,
    status: ProcessStatus,
    code: int | None,
    reason: ExitReason,
    at: datetime,
    now: datetime,
) -> bool:
    """Record the exit, once, and say whether it was this call that did."""
    query = update(processes).where(
        processes.c.id == process, processes.c.status == ProcessStatus.RUNNING
    )
    changes = {"status": status, "exit_code": code, "exit_reason": reason, "completed_at": at}
    return connection.execute(query.values(**changes, updated_at=now)).rowcount > 0


def change(connection: Connection, process: ProcessId, changes: dict[str, Any]) -> None:
    """Change fields of a process."""
    connection.execute(update(processes).where(processes.c.id == process).values(**changes))


def close(connection: Connection, process: ProcessId, now: datetime) -> bool:
    """Record that nothing more follows from this process, and say whether this call did."""
    query = update(processes).where(processes.c.id == process, IS_OPEN)
    return connection.execute(query.values(is_open=False, updated_at=now)).rowcount > 0
