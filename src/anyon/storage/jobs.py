"""Blocking work of this room done in a few threads, for callers on the event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

from anyon.storage.uploads import Stop

T = TypeVar("T")
U = TypeVar("U")


class Jobs:
    """At most *threads* pieces of work at a time; the others wait their turn.

    A cancelled call ends its thread's work before it returns, so nothing goes on behind the
    caller's back.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="anyon-checkpoint")

    async def close(self) -> None:
        """Wait for what is under way and end the threads."""
        await asyncio.to_thread(self._pool.shutdown, wait=True)

    async def run(self, work: Callable[[Stop], T]) -> T:
        """Return what *work* returns; it should ask its ``Stop`` between steps."""
        stop = Stop()
        future = asyncio.get_running_loop().run_in_executor(self._pool, work, stop)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stop.set()
            while not future.done():
                try:
                    await asyncio.wait({future})
                except asyncio.CancelledError:
                    continue
            future.cancelled() or future.exception()  # seen, so that it is not reported as lost
            raise


class Bridged(Generic[T]):
    """An async context, entered and left from a worker thread."""

    def __init__(
        self,
        context: AbstractAsyncContextManager[T],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._context = context
        self._loop = loop

    def __enter__(self) -> T:
        return self._wait(self._context.__aenter__())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._wait(self._context.__aexit__(kind, error, trace))

    def _wait(self, step: Coroutine[Any, Any, U]) -> U:
        return asked(step, self._loop)


def asked(step: Coroutine[Any, Any, U], loop: asyncio.AbstractEventLoop) -> U:
    """Run *step* on the event loop from a worker thread, and return what it returns."""
    return asyncio.run_coroutine_threadsafe(step, loop).result()
