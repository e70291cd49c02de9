"""The past of a project: looked into, downloaded, brought back, forked; none of the looking wakes it.

A path is text, ``<tree>/<path>``: bytes that are no printable text, and ``%``, are ``%XX`` in it.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from anyon.sdk.connections import Connection, Params
from anyon.sdk.lives import Checkpoint
from anyon.sdk.models import Project
from anyon.sdk.requests import Fork, Restore

Id = UUID | str


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class CheckpointDetail(Checkpoint):
    """A checkpoint and what it is made of; ``borrowed_packs`` of its packs lie with other projects."""

    parent: str | None
    epoch: int
    packs: int
    stored_bytes: int
    borrowed_packs: int
    tool: str


class Entry(_Model):
    """A name in a checkpoint. ``kind`` is file, directory, symlink, whiteout or skipped.

    ``target`` is where a symlink points, ``what`` what a skipped entry was; both are text like paths.
    """

    name: str
    path: str
    kind: str
    size_bytes: int
    mode: int
    modified_at: datetime | None
    target: str = ""
    what: str = ""


class Listing(_Model):
    """A part of a directory's entries, by name, from the one numbered ``offset``; ``total`` is how many it has."""

    path: str
    offset: int
    total: int
    entries: list[Entry]


class Change(_Model):
    """A path that differs: ``change`` is added, changed or removed."""

    path: str
    change: str
    before: Entry | None
    after: Entry | None


class Changes(_Model):
    """A part of what differs between two checkpoints, by path; ``has_more``: ask on from ``offset``."""

    offset: int
    has_more: bool
    changes: list[Change]


class TextChange(_Model):
    """How a file differs, as a unified diff; empty where it does not, or cannot be told as text."""

    path: str
    text: str
    is_binary: bool
    is_too_large: bool


class Activity(_Model):
    """What goes on with a project: wake, restore, fork, verify, collect, drill or save; 0 bytes in all: not known."""

    what: str
    started_at: datetime
    done_bytes: int
    total_bytes: int


class Damage(_Model):
    """A damaged path of a checkpoint, and the newest earlier checkpoint that has it whole, if any."""

    checkpoint: str
    path: str
    intact: str | None
    intact_at: datetime | None


class Audited(_Model):
    """What a verification of all checkpoints of a project saw: one line for each damage, at most 100."""

    project_id: UUID
    project: str
    checkpoints: int
    files: int
    packs: int
    problems: list[str]
    damaged: list[Damage] = Field(default_factory=list)


class Standing(_Model):
    """What a project has in the store, and when its restore was last proven.

    ``lent_bytes`` of ``stored_bytes`` are needed by forks; ``borrowed_bytes`` lie with others.
    """

    project_id: UUID
    project: str
    checkpoints: int
    oldest_at: datetime | None
    latest_at: datetime | None
    packs: int
    stored_bytes: int
    lent_bytes: int
    borrowed_bytes: int
    size_bytes: int
    proven_at: datetime | None
    collected_at: datetime | None


class Collected(_Model):
    """What a collection removed."""

    project_id: UUID
    project: str
    checkpoints: int
    packs: int
    bytes: int


class Drilled(_Model):
    """A restore drill: everything restored aside and compared; ``skipped`` says why it was not."""

    project_id: UUID
    project: str
    checkpoint: str | None
    at: datetime
    proven: bool
    files: int
    bytes: int
    seconds: float
    problems: list[str]
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class Download:
    """Bytes of a file or an archive as they come; ``size_bytes`` None is not known before.

    ``start`` is where they begin in the file, ``mark`` names the content to go on with.
    """

    name: str
    mark: str
    start: int
    size_bytes: int | None
    pieces: AsyncIterator[bytes]


class CheckpointCalls:
    """The client's ``checkpoints``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, project: Id, checkpoint: str) -> CheckpointDetail:
        """Return one checkpoint."""
        return await self._connection.call(CheckpointDetail, "GET", _at(project, checkpoint))

    async def entry(self, project: Id, checkpoint: str, path: str) -> Entry:
        """Return what is at *path*."""
        where = f"{_at(project, checkpoint)}/entry"
        return await self._connection.call(Entry, "GET", where, params={"path": path})

    async def browse(
        self, project: Id, checkpoint: str, path: str = "", *, offset: int = 0, limit: int = 1000
    ) -> Listing:
        """Return some of what a directory holds; an empty path is the trees."""
        params: Params = {"path": path, "offset": offset, "limit": limit}
        where = f"{_at(project, checkpoint)}/entries"
        return await self._connection.call(Listing, "GET", where, params=params)

    async def changes(
        self,
        project: Id,
        checkpoint: str,
        *,
        since: str | None = None,
        offset: int = 0,
        limit: int = 1000,
    ) -> Changes:
        """Return what changed from the checkpoint *since* (None: the one before) to this one."""
        params: Params = {"since": since, "offset": offset, "limit": limit}
        where = f"{_at(project, checkpoint)}/changes"
        return await self._connection.call(Changes, "GET", where, params=params)

    async def text_change(
        self, project: Id, checkpoint: str, path: str, *, since: str | None = None
    ) -> TextChange:
        """Return how one file changed."""
        where = f"{_at(project, checkpoint)}/changes/text"
        params = {"path": path, "since": since}
        return await self._connection.call(TextChange, "GET", where, params=params)

    @asynccontextmanager
    async def file(
        self, project: Id, checkpoint: str, path: str, *, start: int = 0, mark: str = ""
    ) -> AsyncIterator[Download]:
        """Open a file for reading from byte *start*.

        With the *mark* of an earlier try the server begins at 0 again if the content is another.
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        if mark:
            headers["If-Range"] = f'"{mark}"'
        where = f"{_at(project, checkpoint)}/file"
        async with self._connection.stream(where, {"path": path}, headers) as answer:
            begins = 0
            if answer.status_code == 206:
                begins = int(answer.headers["Content-Range"].split(" ")[1].split("-")[0])
            length = int(answer.headers["Content-Length"])
            yield Download(
                path.rpartition("/")[2],
                answer.headers.get("ETag", "").strip('"'),
                begins,
                begins + length,
                answer.aiter_bytes(),
            )

    @asynccontextmanager
    async def archive(
        self, project: Id, checkpoint: str, path: str = ""
    ) -> AsyncIterator[Download]:
        """Open a directory (empty: all trees) as a tar archive."""
        where = f"{_at(project, checkpoint)}/archive"
        async with self._connection.stream(where, {"path": path}, {}) as answer:
            name = f"{path.rpartition('/')[2] or 'project'}.tar"
            yield Download(name, "", 0, None, answer.aiter_bytes())

    async def restore(self, project: Id, checkpoint: str, wish: Restore) -> Checkpoint:
        """Go back to a checkpoint, wholly or in part; what is there is saved first."""
        where = f"{_at(project, checkpoint)}/restore"
        return await self._connection.call(Checkpoint, "POST", where, body=wish, waits=True)

    async def fork(self, project: Id, checkpoint: str, name: str) -> Project:
        """Make a new project from a checkpoint; nothing is copied for it."""
        where = f"{_at(project, checkpoint)}/fork"
        return await self._connection.call(Project, "POST", where, body=Fork(name=name), waits=True)

    async def activities(self, project: Id, *, wait: int = 2) -> AsyncIterator[list[Activity]]:
        """Yield what goes on with a project until nothing does; it may begin within *wait* seconds."""
        events = self._connection.events(
            f"/api/projects/{project}/storage/activities", params={"wait": wait}
        )
        async for event in events:
            if event.event == "activities":
                yield [Activity.model_validate(one) for one in event.json()]


class StorageCalls:
    """The client's ``storage``: what projects have in the store. None of it wakes a project."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def usage(self) -> Sequence[Standing]:
        """Return how each of the caller's projects stands in the store."""
        return await self._connection.call(list[Standing], "GET", "/api/storage")

    async def of(self, project: Id) -> Standing:
        """Return how one project stands in the store."""
        return await self._connection.call(Standing, "GET", f"/api/projects/{project}/storage")

    async def verify(self, project: Id, *, read_data: bool = False) -> Audited:
        """Check all checkpoints of a project: their structure, or every byte."""
        path = f"/api/projects/{project}/storage/verify"
        return await self._connection.call(
            Audited, "POST", path, params={"read_data": read_data}, waits=True
        )

    async def collect(self, project: Id) -> Collected:
        """Drop what the retention lets go and nothing needs."""
        path = f"/api/projects/{project}/storage/collect"
        return await self._connection.call(Collected, "POST", path, waits=True)

    async def drill(self, project: Id) -> Drilled:
        """Restore the last checkpoint aside and compare; the outcome is recorded."""
        path = f"/api/projects/{project}/storage/drill"
        return await self._connection.call(Drilled, "POST", path, waits=True)


def _at(project: Id, checkpoint: str) -> str:
    return f"/api/projects/{project}/checkpoints/{checkpoint}"
