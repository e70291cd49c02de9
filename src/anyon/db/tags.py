"""Queries on tags: each user has their own."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from anyon.db.rows import all_of, columns, one_of, values
from anyon.db.schema import tags
from anyon.domain.entities import Tag
from anyon.domain.ids import TagId, UserId

_ALL = select(*columns(Tag, tags))


def add(connection: Connection, tag: Tag) -> None:
    """Record a tag."""
    connection.execute(insert(tags).values(values(tag, tags)))


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
