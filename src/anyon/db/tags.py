"""Queries on tags: each user has their own."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from anyon.db.rows import all_of, columns, one_of, values
from anyon.db.schema import tags
from anyon.domain.entities import Tag
from anyon.domain.ids import TagId, UserId

_ALL = select(*columns(Tag, tags))


def add(connection: Connection, tag: Tag, *, brought_in_at: datetime | None = None) -> None:
    """Record a tag, which a migration brought in, if it did."""
    row = values(tag, tags) | {"brought_in_at": brought_in_at}
    connection.execute(insert(tags).values(row))


def get(connection: Connection, user: UserId, tag: TagId) -> Tag | None:
    """Return one tag of a user."""
    return one_of(connection, Tag, _ALL.where(tags.c.id == tag, tags.c.user_id == user))


def find(connection: Connection, tag: TagId) -> Tag | None:
    """Return one tag, whoever's it is: for a migration only."""
    return one_of(connection, Tag, _ALL.where(tags.c.id == tag))


def of_user(connection: Connection, user: UserId) -> Sequence[Tag]:
    """Return a user's tags by name."""
    query = _ALL.where(tags.c.user_id == user).order_by(tags.c.name, tags.c.created_at, tags.c.id)
    return all_of(connection, Tag, query)


def count(connection: Connection, user: UserId) -> int:
    """Return how many tags a user has."""
    query = select(func.count()).select_from(tags).where(tags.c.user_id == user)
    return int(connection.execute(query).scalar_one())


def change(connection: Connection, tag: TagId, changes: dict[str, Any]) -> None:
    """Change fields of a tag."""
    connection.execute(update(tags).where(tags.c.id == tag).values(**changes))


def remove(connection: Connection, user: UserId, tag: TagId) -> bool:
    """Delete a user's tag; False where there is none."""
    query = delete(tags).where(tags.c.id == tag, tags.c.user_id == user)
    return connection.execute(query).rowcount > 0


def brought_in(connection: Connection, *, only_changed: bool = False) -> Sequence[Tag]:
    """Return what migrations brought in; with *only_changed* what was changed since."""
    query = _ALL.where(tags.c.brought_in_at.is_not(None)).order_by(tags.c.name, tags.c.id)
    if only_changed:
        query = query.where(tags.c.updated_at > tags.c.brought_in_at)
    return all_of(connection, Tag, query)


def take_back(connection: Connection) -> None:
    """Delete what migrations brought in."""
    connection.execute(delete(tags).where(tags.c.brought_in_at.is_not(None)))
