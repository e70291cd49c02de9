"""Queries on tokens."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from anyon.db.rows import all_of, columns, one_of, values
from anyon.db.schema import tokens
from anyon.domain.entities import Token
from anyon.domain.ids import TokenId, UserId


def add(connection: Connection, token: Token) -> None:
    """Record a token."""
    connection.execute(insert(tokens).values(values(token, tokens)))


def of_user(connection: Connection, user: UserId) -> Sequence[Token]:
    """Return a user's tokens, newest first."""
    query = select(*columns(Token, tokens)).where(tokens.c.user_id == user)
    return all_of(connection, Token, query.order_by(tokens.c.created_at.desc(), tokens.c.id))


def by_sha256(connection: Connection, sha256: str) -> Token | None:
    """Return the token whose secret has this SHA-256."""
    return one_of(
        connection, Token, select(*columns(Token, tokens)).where(tokens.c.sha256 == sha256)
    )


def used(connection: Connection, token: TokenId, now: datetime) -> None:
    """Record that a token was used."""
    connection.execute(update(tokens).where(tokens.c.id == token).values(last_used_at=now))


def remove(connection: Connection, user: UserId, token: TokenId) -> bool:
    """Delete one of the user's tokens and say whether it was there."""
    query = delete(tokens).where(tokens.c.id == token, tokens.c.user_id == user)
    return connection.execute(query).rowcount > 0
