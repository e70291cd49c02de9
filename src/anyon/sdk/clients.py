"""The typed client of a server: one property per noun.

async with Client("http://127.0.0.1:8080", token) as client:
    project = await client.projects.create(CreateProject(name="shop"))
"""

from types import TracebackType
from typing import Any, Self

import httpx

from anyon.sdk.checkpoints import CheckpointCalls, StorageCalls
from anyon.sdk.connections import Connection
from anyon.sdk.images import ImageCalls
from anyon.sdk.lives import LifeCalls
from anyon.sdk.models import SystemInfo
from anyon.sdk.previews import PreviewCalls
from anyon.sdk.processes import ProcessCalls
from anyon.sdk.projects import ProjectCalls
from anyon.sdk.saved_work import SavedWorkCalls
from anyon.sdk.statuses import Status
from anyon.sdk.tags import TagCalls
from anyon.sdk.tasks import AttemptCalls, TaskCalls
from anyon.sdk.tokens import TokenCalls


class Client:
    """A server, as its clients see it. Use it as an asynchronous context manager."""

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout: float = 120.0,
    ) -> None:
        self._connection = Connection(base_url, token, transport=transport, timeout=timeout)
        self.projects = ProjectCalls(self._connection)
        self.tasks = TaskCalls(self._connection)
        self.images = ImageCalls(self._connection)
        self.tags = TagCalls(self._connection)
        self.attempts = AttemptCalls(self._connection)
        self.processes = ProcessCalls(self._connection)
        self.lives = LifeCalls(self._connection)
        self.saved_work = SavedWorkCalls(self._connection)
        self.previews = PreviewCalls(self._connection)
        self.checkpoints = CheckpointCalls(self._connection)
        self.storage = StorageCalls(self._connection)
        self.tokens = TokenCalls(self._connection)

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self._connection.base_url

    async def health(self) -> str:
        """Return ``OK`` if the server answers."""
        return await self._connection.call(str, "GET", "/api/health")

    async def info(self) -> SystemInfo:
        """Return what the server says of itself."""
        return await self._connection.call(SystemInfo, "GET", "/api/info")

    async def status(self) -> Status:
        """Return how all of the caller's projects stand; wakes nothing."""
        return await self._connection.call(Status, "GET", "/api/status")

    async def openapi(self) -> dict[str, Any]:
        """Return the interface's own description."""
        document: dict[str, Any] = await self._connection.bare("/api/openapi.json")
        return document

    async def metrics(self) -> str:
        """Return the Prometheus text."""
        return await self._connection.text("/metrics")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._connection.close()
