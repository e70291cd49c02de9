"""Between rows and records, and who may see which."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, Table, select

from anyon.db.schema import members, projects
from anyon.domain.ids import UserId

T = TypeVar("T")


def columns(kind: type[Any], table: Table) -> list[ColumnElement[Any]]:
    """Return the columns of *table* that a record of *kind* is made of, in its order."""
    return [table.c[field.name] for field in fields(kind)]


def all_of(connection: Connection, kind: type[T], query: Select[Any]) -> Sequence[T]:
    """Return the records that *query* (over ``columns``) finds."""
    return [kind(**row) for row in connection.execute(query).mappings()]


def one_of(connection: Connection, kind: type[T], query: Select[Any]) -> T | None:
    """Return the one record that *query* finds, or None."""
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else kind(**row)


def values(record: Any, table: Table) -> dict[str, Any]:
    """Return a record's fields that *table* has columns for."""
    return {
        field.name: getattr(record, field.name) for field in fields(record) if field.name in table.c
    }


def visible(user: UserId, project: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that *project* (a column with a project's id) is one *user* may see."""
    return project.in_(
        select(projects.c.id)
        .join(members, members.c.project_id == projects.c.id)
        .where(members.c.user_id == user, projects.c.deleted_at.is_(None))
    )
