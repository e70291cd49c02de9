"""What can be asked of tokens."""

from collections.abc import Sequence
from uuid import UUID

from anyon.sdk.connections import Connection
from anyon.sdk.models import NewToken, Token
from anyon.sdk.requests import CreateToken


class TokenCalls:
    """The client's ``tokens``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(self, new: CreateToken) -> NewToken:
        """Make a token; its secret is in this answer and never again."""
        return await self._connection.call(NewToken, "POST", "/api/tokens", body=new)

    async def revoke(self, token: UUID | str) -> None:
        """End a token at once."""
        await self._connection.call(type(None), "DELETE", f"/api/tokens/{token}")

    async def list(self) -> Sequence[Token]:
        """Return the caller's tokens, never their secrets."""
        return await self._connection.call(list[Token], "GET", "/api/tokens")
