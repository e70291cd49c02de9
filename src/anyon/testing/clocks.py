"""A clock that a test owns: time passes only when it is told to."""

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta


class FakeClock:
    """Time stands still until ``advance``; whoever sleeps wakes as time passes its hour."""

    def __init__(self, now: datetime | None = None) -> None:
        self._now = now or datetime(2026, 1, 1, 12, tzinfo=UTC)
        self._steady = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """Return the wall time that the test has set."""
        return self._now

    def monotonic(self) -> float:
        """Return how many seconds the test has let pass."""
        return self._steady

    async def sleep(self, length: timedelta) -> None:
        """Wait until the test has let *length* pass."""
        if length <= timedelta(0):
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        due = self._steady + length.total_seconds()
        heapq.heappush(self._sleepers, (due, next(self._order), future))
        await future

    async def advance(self, length: timedelta) -> None:
        """Let *length* pass, waking the sleepers in order, each at its own time."""
        until = self._steady + length.total_seconds()
        while self._sleepers and self._sleepers[0][0] <= until:
            due, _, future = heapq.heappop(self._sleepers)
            self._pass(due - self._steady)
            if not future.done():
                future.set_result(None)
            await asyncio.sleep(0)
        self._pass(until - self._steady)

    def jump(self, length: timedelta) -> None:
        """Set the wall clock forward or back, as an operator or NTP does; no time passes."""
        self._now += length

    def _pass(self, seconds: float) -> None:
        self._steady += seconds
        self._now += timedelta(seconds=seconds)
