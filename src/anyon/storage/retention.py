"""Which checkpoints are kept for how long: a pure decision."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Everything at first, then the newest of each hour, of each day, of each month."""

    everything: timedelta = timedelta(hours=24)
    hourly: timedelta = timedelta(days=7)
    daily: timedelta = timedelta(days=30)
    monthly: timedelta = timedelta(days=366)


def kept(times: Iterable[tuple[str, datetime]], policy: Retention, *, now: datetime) -> set[str]:
    """Return the ids to keep of checkpoints (id, time); the newest is always among them."""
    chosen: set[str] = set()
    seen: set[tuple[str, str]] = set()
    for number, (checkpoint, at) in enumerate(sorted(times, key=lambda t: (t[1], t[0]))[::-1]):
        age = now - at
        if number == 0 or age <= policy.everything:
            chosen.add(checkpoint)
        for name, form, limit in (
            ("hour", "%Y-%m-%d %H", policy.hourly),
            ("day", "%Y-%m-%d", policy.daily),
            ("month", "%Y-%m", policy.monthly),
        ):
            slot = (name, at.astimezone(UTC).strftime(form))
            if age <= limit and slot not in seen:
                seen.add(slot)
                chosen.add(checkpoint)
    return chosen
