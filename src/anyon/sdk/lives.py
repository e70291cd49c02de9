"""What can be asked of a project's life: who holds it awake, what happened, its checkpoints."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from anyon.sdk.connections import Connection
from anyon.sdk.models import Project
from anyon.sdk.requests import Hold, Move, Stop


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Lease(_Model):
    """Who holds a project awake, why, and until when if it is not renewed.

    A hold is one that a user asked for: it is not renewed, and can be released.
    """

    id: UUID
    is_hold: bool
    holder: str
    reason: str
    created_at: datetime
    expires_at: datetime


class Awake(_Model):
    """How a project stands: its phase, who holds it awake, and the next step down if nobody does.

    ``next_step`` is freeze, stop, archive or null (none will come); ``next_step_at`` is when.
    ``position`` is its place in the line of projects that wait to run, null if it does not wait.
    ``files_percent`` is how much of its files is back while a wake restores them, else null.
    """

    goal: str
    phase: str
    phase_since: datetime
    reason: str
    leases: list[Lease]
    next_step: str | None
    next_step_at: datetime | None
    position: int | None = None
    files_percent: int | None = None


class Moved(_Model):
    """What became of a project that was to be moved: ``moved``, or ``there`` (it was already)."""

    project_id: UUID
    state: str
    files: int


class Movable(_Model):
    """A project that the caller may move, whose it is, and where it lies: ``mount`` or ``disk``."""

    id: UUID
    name: str
    user_id: UUID
    place: Literal["mount", "disk"]


class Event(_Model):
    """Something that happened to a project; ``reason`` is a stable code, ``sequence`` grows.

    ``request_id`` is that of the request it came of, null for the server's own doing.
    """

    sequence: int
    kind: str
    reason: str
    detail: str
    at: datetime
    request_id: str | None = None


class Checkpoint(_Model):
    """A saved state of a project: how many files, their bytes, and the bytes that were new."""

    id: str
    at: datetime
    reason: str
    files: int
    size_bytes: int
    new_bytes: int
    unreadable: int = 0
    """Files and directories that could not be read, so they are not in it."""
    unstable: int = 0
    """Files that were written while they were read."""
    look: str = ""
    """How it was found what changed while everything stood still: ``journal``, ``scan``, or empty if nothing did."""
    trees: list[str] = []
    """``workspace``, ``home``; and ``system`` where what is installed outside the project is in it."""


class Verified(_Model):
    """What a verification saw: one line for each damage, at most 100; none if all is whole."""

    files: int
    packs: int
    problems: list[str]
    offers: list[str] = []
    """Where damaged paths are whole: one line for each that is in an earlier checkpoint."""


class LifeCalls:
    """The client's ``lives``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def awake(self, project: UUID | str) -> Awake:
        """Return who holds the project awake, and the next step down; wakes nothing."""
        return await self._connection.call(Awake, "GET", f"/api/projects/{project}/awake")

    async def movable(self) -> Sequence[Movable]:
        """Return what the caller may move: their own; the server's operator everybody's."""
        return await self._connection.call(list[Movable], "GET", "/api/movable-projects")

    async def move(self, project: UUID | str, move: Move) -> Moved:
        """Move the project's files; answered once the copy is proven, however long that takes."""
        path = f"/api/projects/{project}/move"
        return await self._connection.call(Moved, "POST", path, body=move, waits=True)

    async def stop(self, project: UUID | str, *, force: bool = False) -> Awake:
        """Stop the project, and return how it stands then; its next work wakes it."""
        path = f"/api/projects/{project}/stop"
        body = Stop(force=force)
        return await self._connection.call(Awake, "POST", path, body=body, waits=True)

    async def archive(self, project: UUID | str, *, force: bool = False) -> Awake:
        """Archive the project: stopped, saved, its local files gone; its next work brings it back."""
        path = f"/api/projects/{project}/archive"
        body = Stop(force=force)
        return await self._connection.call(Awake, "POST", path, body=body, waits=True)

    async def start(self, project: UUID | str) -> Awake:
        """Wake the project, and return how it stands then; it sleeps again after its idle time."""
        path = f"/api/projects/{project}/start"
        return await self._connection.call(Awake, "POST", path, waits=True)

    async def hold(self, project: UUID | str, hold: Hold) -> Lease:
        """Wake the project and keep it awake for a time, whatever happens in it."""
        path = f"/api/projects/{project}/holds"
        return await self._connection.call(Lease, "POST", path, body=hold, waits=True)

    async def release(self, project: UUID | str, lease: UUID | str) -> None:
        """Give a hold back before its end."""
        path = f"/api/projects/{project}/holds/{lease}"
        await self._connection.call(type(None), "DELETE", path)

    async def events(self, project: UUID | str, *, after: int = 0) -> Sequence[Event]:
        """Return what happened after the event numbered *after*, oldest first, 500 at most."""
        path = f"/api/projects/{project}/events"
        return await self._connection.call(list[Event], "GET", path, params={"after": after})

    async def checkpoints(self, project: UUID | str) -> Sequence[Checkpoint]:
        """Return the project's checkpoints, newest first; wakes nothing."""
        path = f"/api/projects/{project}/checkpoints"
        return await self._connection.call(list[Checkpoint], "GET", path)

    async def save(self, project: UUID | str) -> Checkpoint:
        """Save the project now, and return once that is confirmed in the store."""
        path = f"/api/projects/{project}/checkpoints"
        return await self._connection.call(Checkpoint, "POST", path, waits=True)

    async def restore(self, project: UUID | str, checkpoint: str) -> Checkpoint:
        """Go back to a checkpoint; what is there is saved first. The project is stopped after it."""
        path = f"/api/projects/{project}/checkpoints/{checkpoint}/restore"
        return await self._connection.call(Checkpoint, "POST", path, waits=True)

    async def verify(
        self, project: UUID | str, checkpoint: str, *, read_data: bool = False
    ) -> Verified:
        """Check a checkpoint where it lies, its structure or every byte of it; wakes nothing."""
        path = f"/api/projects/{project}/checkpoints/{checkpoint}/verify"
        return await self._connection.call(
            Verified, "POST", path, params={"read_data": str(read_data).lower()}, waits=True
        )

    async def deleted(self) -> Sequence[Project]:
        """Return the caller's deleted projects that can be brought back, the last deleted first."""
        return await self._connection.call(list[Project], "GET", "/api/deleted-projects")

    async def undelete(self, project: UUID | str) -> None:
        """Make a deleted project one again; its next work brings its files back."""
        path = f"/api/deleted-projects/{project}/restore"
        await self._connection.call(type(None), "POST", path)
