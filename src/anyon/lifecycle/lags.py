"""The loop that measures how late the event loop is: every request and stream waits as long."""

from datetime import timedelta

from anyon.clock import Clock
from anyon.telemetry import Metrics


class LoopLag:
    """Compares when its tick was due with when it came."""

    def __init__(self, *, clock: Clock, metrics: Metrics, interval: timedelta) -> None:
        self._clock = clock
        self._metrics = metrics
        self._interval = interval.total_seconds()
        self._due: float | None = None

    async def tick(self) -> None:
        """Measure; the caller waits the interval after each."""
        now = self._clock.monotonic()
        if self._due is not None:
            self._metrics.lagged(now - self._due)
        self._due = now + self._interval
