"""What can be asked of tags."""

from collections.abc import Sequence
from uuid import UUID

from anyon.sdk.connections import Connection
from anyon.sdk.models import Tag
from anyon.sdk.requests import CreateTag, UpdateTag


class TagCalls:
    """The client's ``tags``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(self, new: CreateTag) -> Tag:
        """Keep a text under a name."""
        return await self._connection.call(Tag, "POST", "/api/tags", body=new)

    async def update(self, tag: UUID | str, changes: UpdateTag) -> Tag:
        """Change a tag."""
        return await self._connection.call(Tag, "PUT", f"/api/tags/{tag}", body=changes)

    async def delete(self, tag: UUID | str) -> None:
        """Delete a tag."""
        await self._connection.call(type(None), "DELETE", f"/api/tags/{tag}")

    async def list(self, search: str = "") -> Sequence[Tag]:
        """Return the caller's tags by name: those whose name holds *search*."""
        params = {"search": search}
        return await self._connection.call(list[Tag], "GET", "/api/tags", params=params)
