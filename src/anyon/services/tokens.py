"""Use cases on API tokens."""

from collections.abc import Sequence
from datetime import datetime

from anyon.domain.actors import ALL, Actor
from anyon.domain.entities import Token
from anyon.domain.ids import TokenId


class Tokens:
    """Makes, lists, revokes and checks tokens. Only the SHA-256 of a secret is kept."""

    async def create(
        self,
        actor: Actor,
        name: str,
        *,
        expires_at: datetime | None = None,
        scopes: frozenset[str] = frozenset({ALL}),
    ) -> tuple[Token, str]:
        """Return a new token and its secret (``anyon_…``), which is shown this once."""
        raise NotImplementedError

    async def list(self, actor: Actor) -> Sequence[Token]:
        """Return the actor's tokens, newest first."""
        raise NotImplementedError

    async def revoke(self, actor: Actor, token_id: TokenId) -> None:
        """Make a token worthless at once; NotFoundError (``token_unknown``)."""
        raise NotImplementedError

    async def authenticate(self, secret: str) -> Actor:
        """Return who *secret* speaks for, or raise UnauthenticatedError (``bad_token``, ``token_expired``)."""
        raise NotImplementedError
