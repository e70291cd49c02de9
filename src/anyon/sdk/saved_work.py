"""What can be asked of saved work: what cleanups have kept, and to make a branch of it."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from anyon.sdk.connections import Connection
from anyon.sdk.requests import RestoreWork


class SavedWork(BaseModel):
    """Unmerged or uncommitted work of an attempt whose worktree was removed, in a hidden ref."""

    model_config = ConfigDict(frozen=True)

    ref: str
    commit: str
    attempt_id: UUID
    saved_at: datetime


class SavedWorkCalls:
    """The client's ``saved_work``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def list(self, project: UUID | str) -> Sequence[SavedWork]:
        """Return what cleanups have saved, newest first."""
        path = f"/api/projects/{project}/saved-work"
        return await self._connection.call(list[SavedWork], "GET", path)

    async def restore(self, project: UUID | str, wanted: RestoreWork) -> None:
        """Make a branch of saved work."""
        path = f"/api/projects/{project}/saved-work/restore"
        await self._connection.call(type(None), "POST", path, body=wanted)
