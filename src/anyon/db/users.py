"""Queries on users."""

from datetime import datetime

from sqlalchemy import Connection, insert, select

from anyon.db.rows import columns, one_of, values
from anyon.db.schema import users
from anyon.domain.entities import User
from anyon.domain.ids import UserId


def ensure(connection: Connection, user_id: UserId, name: str, now: datetime) -> User:
    """Return the user, recorded as *name* if unknown."""
    found = get(connection, user_id)
    if found is not None:
        return found
    user = User(id=user_id, name=name, created_at=now)
    connection.execute(insert(users).values(values(user, users)))
    return user


def get(connection: Connection, user_id: UserId) -> User | None:
    """Return one user."""
    return one_of(connection, User, select(*columns(User, users)).where(users.c.id == user_id))
