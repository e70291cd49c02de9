"""A project's rows as one document that outlives the database, and back into another one.

The document goes into every checkpoint, so it says nothing that changes by itself: a project in
which nothing happens gives the same bytes again. A reader ignores what it does not know.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, Table, TypeDecorator, delete, insert, select, update
from sqlalchemy.dialects import sqlite

from anyon.db import looks as look_rows
from anyon.db import projects as project_rows
from anyon.db import users as user_rows
from anyon.db.schema import attempts, leases, members, merges, processes, projects, tasks, users
from anyon.domain.errors import AnyonError
from anyon.domain.ids import ProjectId, UserId
from anyon.domain.states import ExitReason, Goal, Phase, ProcessStatus, TaskStatus

FORMAT = 1
_FORM = sqlite.dialect()
MOST_PROCESSES = 20_000
"""Of more, the oldest stay behind: a document is read and written whole."""

# What is seen anew, or belongs to the machine that wrote it.
_LEFT_OUT = {
    "projects": {
        "path",
        "phase",
        "phase_since",
        "state_reason",
        "state_detail",
        "last_active_at",
        "server_id",
        "server_until",
    },
    "processes": {"is_stopping"},
}


class RecordsError(AnyonError):
    """A document of rows that this version cannot take up."""

    default_code = "records_unreadable"
    status = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A project's rows, by table, as plain values."""

    user: Mapping[str, Any]
    project: Mapping[str, Any]
    tasks: Sequence[Mapping[str, Any]] = ()
    attempts: Sequence[Mapping[str, Any]] = ()
    processes: Sequence[Mapping[str, Any]] = ()
    merges: Sequence[Mapping[str, Any]] = ()

    @property
    def is_deleted(self) -> bool:
        """Whether the project was a tombstone when this was written."""
        return self.project.get("deleted_at") is not None


def of_project(connection: Connection, project: ProjectId) -> bytes:
    """Return the document of one project; empty if there is no such project."""
    found = _rows(connection, projects, projects.c.id == project)
    if not found:
        return b""
    mine = select(attempts.c.id).where(attempts.c.project_id == project)
    owner = select(projects.c.user_id).where(projects.c.id == project)
    newest = (
        select(processes.c.id)
        .where(processes.c.project_id == project)
        .order_by(processes.c.created_at.desc(), processes.c.id)
        .limit(MOST_PROCESSES)
    )
    body = {
        "format": FORMAT,
        "user": _rows(connection, users, users.c.id.in_(owner))[0],
        "project": found[0],
        "tasks": _rows(connection, tasks, tasks.c.project_id == project),
        "attempts": _rows(connection, attempts, attempts.c.project_id == project),
        "processes": _rows(connection, processes, processes.c.id.in_(newest)),
        "merges": _rows(connection, merges, merges.c.attempt_id.in_(mine)),
    }
    return json.dumps(body, separators=(",", ":"), sort_keys=True).encode()


def _rows(connection: Connection, table: Table, condition: Any) -> list[dict[str, Any]]:
    left_out = _LEFT_OUT.get(table.name, set())
    chosen = [column for column in table.c if column.name not in left_out]
    found = connection.execute(select(*chosen).where(condition).order_by(table.c.id))
    return [
        {name: _plain(table.c[name], value) for name, value in row.items()}
        for row in found.mappings()
    ]


def _plain(column: Column[Any], value: Any) -> Any:
    """Return a value as it stands in SQLite, whatever the database: text and numbers."""
    kind = column.type
    return kind.process_bind_param(value, _FORM) if isinstance(kind, TypeDecorator) else value


def _value(column: Column[Any], plain: Any) -> Any:
    kind = column.type
    return kind.process_result_value(plain, _FORM) if isinstance(kind, TypeDecorator) else plain


def read(data: bytes) -> Copy:
    """Return what a document says, or raise RecordsError."""
    try:
        body = json.loads(data)
        if body["format"] != FORMAT:
            raise RecordsError(
                f"the rows are of format {body['format']}, this version knows {FORMAT}",
                hint="Update Anyon.",
            )
        return Copy(
            user=_parsed(users, body["user"]),
            project=_parsed(projects, body["project"]),
            tasks=[_parsed(tasks, row) for row in body["tasks"]],
            attempts=[_parsed(attempts, row) for row in body["attempts"]],
            processes=[_parsed(processes, row) for row in body["processes"]],
            merges=[_parsed(merges, row) for row in body["merges"]],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordsError(f"the project's rows cannot be read: {error!r}") from error


def _parsed(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(table.c[name], plain) for name, plain in row.items() if name in table.c}


def take_up(
    connection: Connection, copy: Copy, *, path: str, at: datetime, now: datetime, is_set_up: bool
) -> bool:
    """Record a project whose files are in the store only, as it was *at*; False where one of its id is.

    What ran is ended ``machine_lost`` at *at*. A tombstone stays one, and can be brought back for
    a whole window again. *is_set_up* False lets the setup script run again, where what it
    installed is in no checkpoint. The owner must not have another project of the name: see
    ``name_is_taken``.
    """
    project = copy.project
    if project_rows.find(connection, ProjectId(project["id"])) is not None:
        return False
    user = user_rows.ensure(
        connection, UserId(copy.user["id"]), copy.user["name"], copy.user["created_at"]
    )
    state = _arrived(copy, path=path, at=at, now=now, is_set_up=is_set_up)
    connection.execute(insert(projects).values(**{**project, **state}))
    connection.execute(
        insert(members).values(
            project_id=project["id"],
            user_id=user.id,
            role="owner",
            created_at=project["created_at"],
        )
    )
    waiting = _waiting(copy)
    for table, rows in (
        (tasks, [_stopped(row, waiting) for row in copy.tasks]),
        (attempts, copy.attempts),
        (processes, [_ended(row, at) for row in copy.processes]),
        (merges, copy.merges),
    ):
        for row in rows:
            connection.execute(insert(table).values(**row))
    return True


def settle(
    connection: Connection,
    project: ProjectId,
    *,
    path: str,
    at: datetime,
    now: datetime,
    is_set_up: bool,
) -> Copy:
    """Make a project's rows, come with a lost machine's whole database, what ``take_up`` makes of a copy.

    Its events and members stay; its leases end, and what was seen of it is forgotten: it is as of *at* now.
    """
    copy = read(of_project(connection, project))
    state = _arrived(copy, path=path, at=at, now=now, is_set_up=is_set_up)
    state |= {"server_id": None, "server_until": None}
    connection.execute(update(projects).where(projects.c.id == project).values(**state))
    connection.execute(delete(leases).where(leases.c.project_id == project))
    look_rows.forget_all(connection, project)
    for row in copy.tasks:
        stopped = _stopped(row, _waiting(copy))
        if stopped != row:
            connection.execute(update(tasks).where(tasks.c.id == row["id"]).values(**stopped))
    for row in copy.processes:
        if row["is_open"]:
            ended = _ended(row, at)
            connection.execute(update(processes).where(processes.c.id == row["id"]).values(**ended))
    return copy


def _arrived(
    copy: Copy, *, path: str, at: datetime, now: datetime, is_set_up: bool
) -> dict[str, Any]:
    state: dict[str, Any] = {
        "path": path,
        "goal": Goal.RUNNING,
        "phase": Phase.ARCHIVED,
        "phase_since": now,
        "state_reason": "recovered",
        "state_detail": "",
        "last_active_at": at,
    }
    if copy.is_deleted:
        state |= {"goal": Goal.DELETED, "phase": Phase.ABSENT, "deleted_at": now}
    if not is_set_up:
        state["setup_completed_at"] = None
    return state


def _waiting(copy: Copy) -> set[str]:
    """Return the tasks that a process was still owed to."""
    lost = {row["attempt_id"] for row in copy.processes if row["is_open"]}
    return {row["task_id"] for row in copy.attempts if row["id"] in lost}


def name_is_taken(connection: Connection, copy: Copy) -> bool:
    """Say whether the owner has another living project of this one's name here."""
    query = select(projects.c.id).where(
        projects.c.user_id == copy.user["id"],
        projects.c.name == copy.project["name"],
        projects.c.deleted_at.is_(None),
        projects.c.id != copy.project["id"],
    )
    return not copy.is_deleted and connection.execute(query).first() is not None


def _ran(process: Mapping[str, Any]) -> bool:
    return bool(process["status"] == ProcessStatus.RUNNING)


def _ended(process: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    end: dict[str, Any] = {"is_open": False, "is_stopping": False}
    if _ran(process):
        reason = ExitReason.MACHINE_LOST
        end |= {"status": ProcessStatus.KILLED, "exit_reason": reason, "completed_at": at}
    return {**process, **end}


def _stopped(task: Mapping[str, Any], waiting: set[str]) -> dict[str, Any]:
    """Return a task that nothing works on any more: somebody has to look at what is there."""
    if task["status"] == TaskStatus.INPROGRESS and task["id"] in waiting:
        return {**task, "status": TaskStatus.INREVIEW}
    return dict(task)
