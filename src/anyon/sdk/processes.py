"""What can be asked of processes: how they stand, what they wrote, and to end."""

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any
from uuid import UUID

from anyon.sdk.connections import Connection, wait_before_retry
from anyon.sdk.errors import ApiError
from anyon.sdk.models import Channel, ExecutionProcess, OutputChunk

Id = UUID | str

_PASSING = frozenset({0, 502, 503, 504})
"""Statuses that may be gone a moment later; 0 is no answer."""


class ProcessCalls:
    """The client's ``processes``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, process: Id) -> ExecutionProcess:
        """Return one process."""
        path = f"/api/execution-processes/{process}"
        return await self._connection.call(ExecutionProcess, "GET", path)

    async def stop(self, process: Id) -> None:
        """End the process, its whole tree."""
        path = f"/api/execution-processes/{process}/stop"
        await self._connection.call(type(None), "POST", path)

    async def output(
        self,
        process: Id,
        channel: Channel = "stdout",
        *,
        offset: int = 0,
        limit: int = 65536,
        wait: float = 0,
    ) -> OutputChunk:
        """Return a piece of output from *offset* on, waiting up to *wait* seconds for one."""
        return await self._connection.call(
            OutputChunk,
            "GET",
            f"/api/processes/{process}/output",
            params={"channel": channel, "offset": offset, "limit": limit, "wait": wait},
        )

    async def follow(
        self,
        process: Id,
        offsets: Mapping[Channel, int] | None = None,
        *,
        patience: float = 60.0,
    ) -> AsyncIterator[OutputChunk]:
        """Yield every piece of both outputs, once and in order, and end after the process's end.

        A connection that breaks is made again at the offsets reached; after *patience* seconds
        without an answer it is an UnreachableError.
        """
        reached: dict[Channel, int] = {"stdout": 0, "stderr": 0, **(offsets or {})}
        failures, lost_at = 0, None
        while True:
            try:
                async for event in self._connection.events(
                    f"/api/processes/{process}/events", last_id=_cursor(reached)
                ):
                    if event.event == "error":
                        raise _error_of(event.data)
                    failures, lost_at = 0, None
                    if event.event == "exit":
                        return
                    if event.event == "output":
                        chunk = OutputChunk.model_validate_json(event.data)
                        reached[chunk.channel] = chunk.next_offset
                        yield chunk
                # An end without "exit" is the server's own: it has answered, so ask again.
                lost_at = None
            except ApiError as error:
                if error.status not in _PASSING:
                    raise
                lost_at = lost_at or time.monotonic()
                if failures and time.monotonic() - lost_at >= patience:
                    raise
            await wait_before_retry(failures)
            failures += 1

    def conversation(self, process: Id) -> AsyncGenerator[Any, None]:
        """Yield the frames of an agent's conversation, from its beginning to its end."""
        path = f"/api/execution-processes/{process}/normalized-logs/ws"
        return self._connection.frames(path)

    async def wait(self, process: Id) -> ExecutionProcess:
        """Return the process once it is over."""
        async for _ in self.follow(process):
            pass
        return await self.get(process)


def _error_of(data: str) -> ApiError:
    told = json.loads(data)
    return ApiError(int(told["status"]), told["code"], told["message"], told["hint"])


def _cursor(reached: Mapping[Channel, int]) -> str:
    return f"{reached['stdout']}.{reached['stderr']}"
