"""What can be asked of projects."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from anyon.sdk.connections import Connection
from anyon.sdk.errors import ApiError
from anyon.sdk.models import ExecutionProcess, GitBranch, Project
from anyon.sdk.requests import CreateProject, Exec, UpdateProject
from anyon.sdk.terminals import Terminal

Id = UUID | str


class ProjectCalls:
    """The client's ``projects``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(self, new: CreateProject) -> Project:
        """Make a project."""
        return await self._connection.call(Project, "POST", "/api/projects", body=new, waits=True)

    async def get(self, project: Id) -> Project:
        """Return one project."""
        return await self._connection.call(Project, "GET", f"/api/projects/{project}")

    async def find(self, name_or_id: str) -> Project:
        """Return the project with that id, or the only one with that name or beginning of an id."""
        found = await self.list()
        for fits in (
            [p for p in found if str(p.id) == name_or_id.lower()],
            [p for p in found if p.name == name_or_id],
            [p for p in found if len(name_or_id) >= 4 and str(p.id).startswith(name_or_id.lower())],
        ):
            if len(fits) == 1:
                return fits[0]
            if fits:
                ids = ", ".join(str(p.id) for p in fits)
                raise ApiError(
                    409, "ambiguous", f"{name_or_id!r} fits several projects", f"Name one: {ids}"
                )
        raise ApiError(
            404,
            "not_found",
            f"there is no project {name_or_id!r}",
            "`anyon project list` shows what there is.",
        )

    async def update(self, project: Id, changes: UpdateProject) -> Project:
        """Change a project."""
        path = f"/api/projects/{project}"
        return await self._connection.call(Project, "PUT", path, body=changes)

    async def delete(self, project: Id) -> None:
        """Delete a project, its container with it."""
        await self._connection.call(type(None), "DELETE", f"/api/projects/{project}")

    async def branches(self, project: Id) -> Sequence[GitBranch]:
        """Return the branches: the current one first, then the newest."""
        path = f"/api/projects/{project}/branches"
        return await self._connection.call(list[GitBranch], "GET", path)

    async def exec(self, project: Id, command: Exec) -> ExecutionProcess:
        """Start a command as a durable process in the project's container."""
        path = f"/api/projects/{project}/exec"
        return await self._connection.call(ExecutionProcess, "POST", path, body=command, waits=True)

    @asynccontextmanager
    async def terminal(
        self, project: Id, *, columns: int = 80, rows: int = 24, command: str | None = None
    ) -> AsyncIterator[Terminal]:
        """Open a terminal in the project's container."""
        async with self._connection.websocket(
            f"/api/projects/{project}/terminal",
            params={"columns": columns, "rows": rows, "command": command},
            waits=True,
        ) as websocket:
            yield Terminal(websocket)

    async def list(self) -> Sequence[Project]:
        """Return the caller's projects, newest updated first."""
        return await self._connection.call(list[Project], "GET", "/api/projects")
