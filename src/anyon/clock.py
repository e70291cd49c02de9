"""Time as a thing that is handed down, so that a test can own it."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where a component learns the time and waits."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC; it may jump either way."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only grow; for measuring lengths, never for records."""
        ...

    async def sleep(self, length: timedelta) -> None:
        """Return after *length* has passed on this clock."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the wall time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the machine's steady seconds."""
        return time.monotonic()

    async def sleep(self, length: timedelta) -> None:
        """Wait on the event loop."""
        await asyncio.sleep(length.total_seconds())
