"""The parent of background work: nothing runs without one, and no failure goes unheard."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Supervisor:
    """Keeps tasks until they end, tells the log of those that fail, and ends them all at its close."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._heard: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start *work* in the background."""
        if self._is_closed:
            work.close()
            raise RuntimeError(f"{name} was started after the shutdown")
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def finish(self, work: Coroutine[Any, Any, T], *, name: str) -> T:
        """Return what *work* returns; when the caller is cancelled meanwhile, it still goes on to its end."""
        task = self.spawn(work, name=name)
        self._heard.add(task)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._heard.discard(task)  # nobody is left who would learn of its failure
            raise

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        is_heard = task in self._heard
        self._heard.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not is_heard:
            log.warning("task.failed", task=task.get_name(), error=repr(error))

    async def close(self) -> None:
        """Cancel everything and wait for it. Repeats are harmless."""
        self._is_closed = True
        while self._tasks:
            tasks = tuple(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # The callbacks that take tasks off the set come a moment after their end.
            await asyncio.sleep(0)
