"""What can be asked of images that are attached to tasks."""

from collections.abc import Sequence
from uuid import UUID

from anyon.sdk.connections import Connection
from anyon.sdk.models import Image


class ImageCalls:
    """The client's ``images``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def upload(self, name: str, content: bytes, *, task: UUID | str | None = None) -> Image:
        """Keep an image, and attach it to a task if one is named; the same content gives the same one."""
        path = "/api/images/upload" if task is None else f"/api/images/task/{task}/upload"
        return await self._connection.call(Image, "POST", path, file=("image", name, content))

    async def of_task(self, task: UUID | str) -> Sequence[Image]:
        """Return what is attached to a task, in order."""
        return await self._connection.call(list[Image], "GET", f"/api/images/task/{task}")

    async def content(self, image: UUID | str) -> bytes:
        """Return an image's bytes."""
        async with self._connection.stream(f"/api/images/{image}/file", {}, {}) as response:
            return await response.aread()

    async def delete(self, image: UUID | str) -> None:
        """Delete an image, and it from all tasks."""
        await self._connection.call(type(None), "DELETE", f"/api/images/{image}")
