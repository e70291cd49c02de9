"""Use cases on API tokens."""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import tokens as token_rows
from anyon.db import users as user_rows
from anyon.db.databases import Database
from anyon.domain import names
from anyon.domain.actors import ALL, Actor
from anyon.domain.entities import Token
from anyon.domain.errors import InvalidInputError, NotFoundError, UnauthenticatedError
from anyon.domain.ids import LOCAL_USER, TokenId, new_id

PREFIX = "anyon_"
SHOWN = len(PREFIX) + 6
"""Characters of a secret that stay readable, to tell tokens apart."""
SKEW = timedelta(seconds=60)
USE_STEP = timedelta(minutes=5)
"""How fine ``last_used_at`` is, so that not every request writes."""


class Tokens:
    """Makes, lists, revokes and checks tokens. Only the SHA-256 of a secret is kept."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def create(
        self,
        actor: Actor,
        name: str,
        *,
        expires_at: datetime | None = None,
        scopes: frozenset[str] = frozenset({ALL}),
    ) -> tuple[Token, str]:
        """Return a new token and its secret (``anyon_…``), which is shown this once.

        InvalidInputError: ``name_empty`` and its like, ``expired_already``.
        """
        now = self._clock.now()
        if expires_at is not None and expires_at <= now:
            raise InvalidInputError("a token must not expire before now", code="expired_already")
        secret = PREFIX + secrets.token_urlsafe(32)
        token = Token(
            id=TokenId(new_id()),
            user_id=actor.user_id,
            name=names.token_name(name),
            prefix=secret[:SHOWN],
            sha256=_sha256(secret),
            created_at=now,
            expires_at=expires_at,
            scopes=scopes,
        )
        await self._db.write(_add, token)
        return token, secret

    async def list(self, actor: Actor) -> Sequence[Token]:
        """Return the actor's tokens, newest first."""
        return await self._db.read(token_rows.of_user, actor.user_id)

    async def revoke(self, actor: Actor, token_id: TokenId) -> None:
        """Make a token worthless at once; NotFoundError (``token_unknown``)."""
        if not await self._db.write(token_rows.remove, actor.user_id, token_id):
            raise NotFoundError("there is no such token", code="token_unknown")

    async def authenticate(self, secret: str) -> Actor:
        """Return who *secret* speaks for, or raise UnauthenticatedError (``bad_token``, ``token_expired``)."""
        token = None
        if secret.startswith(PREFIX) and len(secret) <= 200:
            token = await self._db.read(token_rows.by_sha256, _sha256(secret))
        if token is None:
            raise UnauthenticatedError(
                "the token is not known here",
                code="bad_token",
                hint="Make one with `anyon token create` and send it as a bearer token.",
            )
        now = self._clock.now()
        if token.expires_at is not None and now > token.expires_at + SKEW:
            raise UnauthenticatedError(
                f"the token {token.prefix}… has expired",
                code="token_expired",
                hint="Make a new one with `anyon token create`.",
            )
        if token.last_used_at is None or now - token.last_used_at >= USE_STEP:
            await self._db.write(token_rows.used, token.id, now)
        return Actor(token.user_id, token.id, token.scopes)


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _add(connection: Connection, token: Token) -> None:
    # A server's first token may be made before anything else has recorded its one user.
    name = "local" if token.user_id == LOCAL_USER else token.user_id
    user_rows.ensure(connection, token.user_id, name, token.created_at)
    token_rows.add(connection, token)
