"""What can be asked of tasks and of their attempts."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import UUID

from anyon.sdk.connections import Connection
from anyon.sdk.errors import UnreachableError
from anyon.sdk.models import (
    BranchStatus,
    Channel,
    Diff,
    ExecutionProcess,
    OutputChunk,
    Task,
    TaskAttempt,
    TaskWithAttemptStatus,
)
from anyon.sdk.processes import ProcessCalls
from anyon.sdk.requests import (
    CreateAndStartTask,
    CreateAttempt,
    CreateTask,
    FollowUp,
    Rebase,
    UpdateTask,
)

Id = UUID | str

_WAIT_SECONDS, _PAUSE_SECONDS = 30, 0.1


class TaskCalls:
    """The client's ``tasks``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(self, new: CreateTask) -> TaskWithAttemptStatus:
        """Make a task; one without a title is also started."""
        return await self._connection.call(TaskWithAttemptStatus, "POST", "/api/tasks", body=new)

    async def create_and_start(self, new: CreateAndStartTask) -> TaskWithAttemptStatus:
        """Make a task and start its first attempt."""
        path = "/api/tasks/create-and-start"
        return await self._connection.call(
            TaskWithAttemptStatus, "POST", path, body=new, waits=True
        )

    async def get(self, task: Id) -> TaskWithAttemptStatus:
        """Return one task."""
        return await self._connection.call(TaskWithAttemptStatus, "GET", f"/api/tasks/{task}")

    async def ended(self, task: Id) -> TaskWithAttemptStatus:
        """Return the task once no attempt at it is in progress; the server tells of that at once."""
        while True:
            path, params = f"/api/tasks/{task}", {"wait": _WAIT_SECONDS}
            found = await self._connection.call(TaskWithAttemptStatus, "GET", path, params=params)
            if not found.has_in_progress_attempt:
                return found
            await asyncio.sleep(_PAUSE_SECONDS)

    async def update(self, task: Id, changes: UpdateTask) -> Task:
        """Change a task."""
        return await self._connection.call(Task, "PUT", f"/api/tasks/{task}", body=changes)

    async def delete(self, task: Id) -> None:
        """Delete a task that does not run; unmerged work is saved first."""
        await self._connection.call(type(None), "DELETE", f"/api/tasks/{task}")

    async def follow(self, task: Id) -> AsyncGenerator[OutputChunk, None]:
        """Yield both outputs of the task's newest process, as they come, and end after its end."""
        process: ExecutionProcess | None = None
        reached: dict[Channel, int] = {}
        try:
            async for event in self._connection.events(f"/api/tasks/{task}/events"):
                if event.event == "exit":
                    return
                if event.event == "process":
                    process = ExecutionProcess.model_validate_json(event.data)
                elif event.event == "output":
                    chunk = OutputChunk.model_validate_json(event.data)
                    reached[chunk.channel] = chunk.next_offset
                    yield chunk
        except UnreachableError:
            if process is None:
                raise
        if process is not None:  # the stream was cut: go on where it was
            async for chunk in ProcessCalls(self._connection).follow(process.id, reached):
                yield chunk

    def watch(self, project: Id) -> AsyncGenerator[Any, None]:
        """Yield the frames of the project's task stream: a snapshot, then every change."""
        return self._connection.frames("/api/tasks/stream/ws", params={"project_id": str(project)})

    async def list(self, project: Id) -> Sequence[TaskWithAttemptStatus]:
        """Return a project's tasks, newest first."""
        params = {"project_id": str(project)}
        kind = list[TaskWithAttemptStatus]
        return await self._connection.call(kind, "GET", "/api/tasks", params=params)


class AttemptCalls:
    """The client's ``attempts``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def start(self, new: CreateAttempt) -> TaskAttempt:
        """Start a new attempt at a task."""
        return await self._connection.call(
            TaskAttempt, "POST", "/api/task-attempts", body=new, waits=True
        )

    async def get(self, attempt: Id) -> TaskAttempt:
        """Return one attempt."""
        return await self._connection.call(TaskAttempt, "GET", _path(attempt))

    async def processes(self, attempt: Id) -> Sequence[ExecutionProcess]:
        """Return an attempt's processes, oldest first."""
        params = {"task_attempt_id": str(attempt)}
        kind = list[ExecutionProcess]
        return await self._connection.call(kind, "GET", "/api/execution-processes", params=params)

    async def follow_up(self, attempt: Id, more: FollowUp) -> ExecutionProcess:
        """Give the attempt's agent a further prompt."""
        path = _path(attempt, "follow-up")
        return await self._connection.call(ExecutionProcess, "POST", path, body=more, waits=True)

    async def stop(self, attempt: Id) -> None:
        """Kill every running process of the attempt."""
        await self._connection.call(type(None), "POST", _path(attempt, "stop"))

    async def diff(self, attempt: Id, *, stats_only: bool = False) -> Sequence[Diff]:
        """Return what the attempt changed."""
        params = {"stats_only": stats_only}
        return await self._connection.call(list[Diff], "GET", _path(attempt, "diff"), params=params)

    async def status(self, attempt: Id) -> BranchStatus:
        """Return how the attempt's branch stands."""
        return await self._connection.call(BranchStatus, "GET", _path(attempt, "branch-status"))

    async def merge(self, attempt: Id) -> None:
        """Put the attempt's change on its target branch as one commit."""
        await self._connection.call(type(None), "POST", _path(attempt, "merge"), waits=True)

    async def rebase(self, attempt: Id, onto: Rebase | None = None) -> None:
        """Rebase the attempt's branch."""
        path = _path(attempt, "rebase")
        await self._connection.call(type(None), "POST", path, body=onto or Rebase(), waits=True)

    async def list(self, task: Id) -> Sequence[TaskAttempt]:
        """Return a task's attempts, newest first."""
        params = {"task_id": str(task)}
        return await self._connection.call(
            list[TaskAttempt], "GET", "/api/task-attempts", params=params
        )


def _path(attempt: Id, more: str = "") -> str:
    return f"/api/task-attempts/{attempt}{'/' + more if more else ''}"
