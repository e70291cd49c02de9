"""The event loop's lag is what passed beyond the interval."""

from datetime import timedelta

from anyon.lifecycle.lags import LoopLag
from anyon.telemetry import Metrics
from anyon.testing.clocks import FakeClock


async def test_a_late_round_is_measured() -> None:
    """The first tick has nothing to compare with; a punctual one is 0, a late one what it was late by."""
    clock, metrics = FakeClock(), Metrics()
    lag = LoopLag(clock=clock, metrics=metrics, interval=timedelta(seconds=1))
    for seconds in (0.0, 1.0, 3.5):
        await clock.advance(timedelta(seconds=seconds))
        await lag.tick()
    text = metrics.text()
    assert "anyon_event_loop_lag_seconds_count 2.0" in text
    assert "anyon_event_loop_lag_seconds_sum 2.5" in text
