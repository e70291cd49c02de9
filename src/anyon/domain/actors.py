"""Who acts: the first argument of every use case."""

from dataclasses import dataclass

from anyon.domain.ids import LOCAL_USER, TokenId, UserId

ALL = "*"
"""The scope of a key that may do everything its user may."""


@dataclass(frozen=True, slots=True)
class Actor:
    """A user, the token that spoke for them (None: no login was asked), and what it may do."""

    user_id: UserId
    token_id: TokenId | None = None
    scopes: frozenset[str] = frozenset({ALL})

    def may(self, scope: str) -> bool:
        """Say whether *scope* is among what this actor may do."""
        return ALL in self.scopes or scope in self.scopes


LOCAL_ACTOR = Actor(LOCAL_USER)
"""The one user of a server that asks for no login."""
