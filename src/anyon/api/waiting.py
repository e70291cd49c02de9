"""Waiting on a source, the end of the server and the clock at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Generic, TypeVar

T = TypeVar("T")


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
