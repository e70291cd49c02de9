"""Which tasks the open task streams have shown.

A client that has just made a task looks it up in its stream at once; so the answer to a
creation waits until every open stream of the project has sent the task (bounded: a client
that does not read must not hold up another's answer).
"""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress


class Board:
    """What one stream has shown."""

    def __init__(self) -> None:
        self.shown: set[str] = set()
        self._waiting: dict[str, asyncio.Event] = {}

    def show(self, task_id: str) -> None:
        """Note that the task is on the wire."""
        self.shown.add(task_id)
        if task_id in self._waiting:
            self._waiting.pop(task_id).set()

    async def has_shown(self, task_id: str) -> None:
        """Return once the task is on the wire."""
        if task_id not in self.shown:
            await self._waiting.setdefault(task_id, asyncio.Event()).wait()

    def end(self) -> None:
        """Let everyone go who waits for this stream."""
        for event in self._waiting.values():
            event.set()


class Boards:
    """All open task streams, by project."""

    def __init__(self) -> None:
        self._open: dict[str, set[Board]] = {}

    @contextmanager
    def open(self, project_id: str) -> Iterator[Board]:
        """Return the board of a new stream, there for as long as the block."""
        board = Board()
        boards = self._open.setdefault(project_id, set())
        boards.add(board)
        try:
            yield board
        finally:
            boards.discard(board)
            board.end()
            if not boards:
                self._open.pop(project_id, None)

    def of(self, project_id: str) -> Collection[Board]:
        """Return the boards of a project's open streams."""
        return tuple(self._open.get(project_id, ()))

    async def shown(self, project_id: str, task_id: str, *, deadline: float = 2.0) -> None:
        """Return once all streams of the project have shown the task, or after *deadline* seconds."""
        boards = self.of(project_id)
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                for board in boards:
                    await board.has_shown(task_id)
