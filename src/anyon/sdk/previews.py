"""What can be asked of a project's previews: a link to a port, and the ports that are listened on."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from anyon.sdk.connections import Connection


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class PreviewLink(_Model):
    """A link that opens a preview once, until *expires_at*; ``origin`` is where it is then."""

    url: str
    origin: str
    port: int
    expires_at: datetime


class ListeningPorts(_Model):
    """The ports that programs of a project listen on; null while it sleeps and cannot be looked into."""

    ports: list[int] | None


class PreviewCalls:
    """The client's ``previews``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def link(self, project: UUID | str, port: int) -> PreviewLink:
        """Return a link to what listens on a port of the project; wakes nothing until it is opened."""
        path = f"/api/projects/{project}/previews/{port}"
        return await self._connection.call(PreviewLink, "POST", path)

    async def ports(self, project: UUID | str) -> ListeningPorts:
        """Return the ports that are listened on; wakes nothing."""
        path = f"/api/projects/{project}/ports"
        return await self._connection.call(ListeningPorts, "GET", path)
