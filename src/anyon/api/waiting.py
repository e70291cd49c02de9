"""Waiting on a source, the end of the server and the clock at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Generic, TypeVar

from anyon.services.feed import Change, Subscription

T = TypeVar("T")

LOOK_AGAIN_SECONDS = 2.0
"""How often is looked without any notice: what another server changes is in no feed here."""


class Pump(Generic[T]):
    """Reads a source in a task of its own, a few items ahead, so that waiting for it can be cut short.

    (A wait that is cancelled inside an async generator would end the generator.)
    """

    def __init__(
        self, source: AsyncIterator[T], closing: asyncio.Event, *, ahead: int = 16
    ) -> None:
        self._source = source
        self._closing = closing
        self._items: asyncio.Queue[T] = asyncio.Queue(ahead)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Pump[T]":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await self._task

    async def _run(self) -> None:
        if hasattr(self._source, "aclose"):
            async with aclosing(self._source):  # type: ignore[type-var] # it was just looked for
                async for item in self._source:
                    await self._items.put(item)
        else:
            async for item in self._source:
                await self._items.put(item)

    async def next(self, seconds: float) -> T | None:
        """Return the next item, or None when *seconds* passed first.

        StopAsyncIteration at the source's end, or when the server begins to close; an error of
        the source is raised once everything before it was returned.
        """
        assert self._task is not None
        if not self._items.empty():
            return self._items.get_nowait()
        if self._closing.is_set():
            raise StopAsyncIteration
        getting = asyncio.ensure_future(self._items.get())
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait(
                {getting, closing, self._task},
                timeout=seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if getting.done():
                return getting.result()
            if self._closing.is_set():
                raise StopAsyncIteration
            if self._task.done():
                return self._last()
            return None
        finally:
            getting.cancel()
            closing.cancel()

    def _last(self) -> T:
        assert self._task is not None
        if not self._items.empty():
            return self._items.get_nowait()
        self._task.result()  # raises the source's error
        raise StopAsyncIteration


async def looked_until(
    is_enough: Callable[[T], bool],
    look: Callable[[], Awaitable[T]],
    *,
    changes: Subscription,
    concerns: Callable[[Change], bool],
    closing: asyncio.Event,
    seconds: float,
) -> T:
    """Return what *look* sees once it is enough, else as it stands when *seconds* are over.

    It looks anew at each of the *changes* that concerns it, so many waiters cost nothing while
    nothing happens; the beginning of the server's end cuts the waiting short.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    seen = await look()
    if is_enough(seen) or seconds <= 0:
        return seen
    notices = (change async for change in changes if concerns(change))
    async with Pump[Change](notices, closing) as pump:
        while not is_enough(seen) and (left := until - loop.time()) > 0:
            try:
                await pump.next(min(left, LOOK_AGAIN_SECONDS))
            except StopAsyncIteration:
                break
            seen = await look()
    return seen
