"""What the machine has room for, and who goes when its memory runs short; pure.

The memory of a container counts by its limit where it has one, for that is what it may take at any
moment; else by what it uses now, and one that is being started by an allowance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from anyon.domain.entities import Project
from anyon.domain.ids import ProjectId
from anyon.domain.states import Phase

ALLOWANCE_BYTES = 256 * 1024 * 1024
"""What a container without a limit counts for while it is being started."""
QUIET = timedelta(minutes=1)
"""How long a running project must have been idle before memory pressure stops it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The most of a host: containers at once (frozen ones too), and their memory; 0 is no limit.

    ``each_bytes`` is the limit of one container, 0 where it has none.
    """

    most_running: int = 0
    most_memory_bytes: int = 0
    each_bytes: int = 0

    @property
    def is_limited(self) -> bool:
        """Whether there is anything to wait for."""
        return bool(self.most_running or self.most_memory_bytes)

    @property
    def is_measured(self) -> bool:
        """Whether what containers use must be looked at."""
        return bool(self.most_memory_bytes) and not self.each_bytes

    def lacks(
        self, up: Mapping[ProjectId, int], starting: frozenset[ProjectId], new: ProjectId
    ) -> str | None:
        """Return the setting for which *new* must wait, or None when there is room.

        *up* maps what runs or is frozen to the bytes it uses. What is up or being started already
        has its place.
        """
        if new in up or new in starting:
            return None
        if self.most_running and len(set(up) | starting) >= self.most_running:
            return "max_running"
        if not self.most_memory_bytes:
            return None
        beginning = starting - set(up)
        if self.each_bytes:
            taken = self.each_bytes * (len(up) + len(beginning))
        else:
            taken = sum(up.values()) + ALLOWANCE_BYTES * len(beginning)
        needed = self.each_bytes or ALLOWANCE_BYTES
        return "max_memory" if taken + needed > self.most_memory_bytes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryState:
    """What the kernel says of memory; None for what it does not tell.

    ``stalled_percent`` is the share of the last ten seconds in which some program waited for
    memory (``/proc/pressure/memory``); ``available_bytes`` is what is left (``MemAvailable``).
    """

    stalled_percent: float | None = None
    available_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When memory is short; zero switches a sign off."""

    stalled_percent: float = 25.0
    available_bytes: int = 256 * 1024 * 1024


def pressure(state: MemoryState, thresholds: Thresholds) -> str | None:
    """Return the words for why memory is short, or None when it is not.

    Stalls count where the kernel tells them; what is available counts only where it does not.
    """
    if state.stalled_percent is not None:
        most = thresholds.stalled_percent
        if most and state.stalled_percent >= most:
            return f"programs waited for memory {state.stalled_percent:.0f} % of ten seconds"
        return None
    left, least = state.available_bytes, thresholds.available_bytes
    if left is not None and least and left < least:
        return f"{left // 2**20} MiB of memory are available"
    return None


def who_goes(
    projects: Sequence[Project], held: frozenset[ProjectId], now: datetime
) -> Sequence[Project]:
    """Return the projects that may be stopped to free memory, the first to go first.

    Frozen ones before running ones, the longest idle first; never one with a lease (*held*), nor
    one that was active within the last minute.
    """
    tiers = {Phase.FROZEN: 0, Phase.RUNNING: 1}
    free = [
        one
        for one in projects
        if one.phase in tiers and one.id not in held and now - one.last_active_at >= QUIET
    ]
    return sorted(free, key=lambda one: (tiers[one.phase], one.last_active_at, one.id))
