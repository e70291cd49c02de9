"""What a load test found: latencies, failures, what was running; summed up without any I/O."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

SHARES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One operation: its latency in seconds, and the error's code if it failed."""

    operation: str
    seconds: float
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """The latencies of one operation, in seconds; failed ones are counted, not measured."""

    operation: str
    count: int
    failures: Mapping[str, int]
    shares: Mapping[str, float]
    longest: float

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(self.failures.values())


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest of the *ordered* values that at least *share* (0 to 1) of them do not exceed."""
    if not ordered:
        return float("nan")
    rank = max(1, -(-len(ordered) * round(share * 10_000) // 10_000))  # ceiling, free of rounding
    return ordered[rank - 1]


def latencies(samples: Sequence[Sample]) -> list[Latencies]:
    """Return the latencies of each operation, in the order in which operations first came."""
    found = []
    for operation in dict.fromkeys(sample.operation for sample in samples):
        own = [sample for sample in samples if sample.operation == operation]
        good = sorted(sample.seconds for sample in own if sample.failure is None)
        found.append(
            Latencies(
                operation=operation,
                count=len(own),
                failures=Counter(s.failure for s in own if s.failure is not None),
                shares={name: percentile(good, share) for name, share in SHARES.items()},
                longest=good[-1] if good else float("nan"),
            )
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A project as the server's interface showed it while the load was on."""

    project: str
    name: str
    phase: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The server's own figures at one moment: seconds since the beginning, bytes, descriptors."""

    at_seconds: float
    resident_bytes: float
    open_fds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A whole load test. ``metrics`` is the server's Prometheus text at the end of the load."""

    profile: str
    server: str
    version: str
    projects: int
    tasks: int
    started_at: datetime
    wall_seconds: float
    samples: Sequence[Sample]
    containers: Sequence[Container]
    readings: Sequence[Reading]
    metrics: str = field(repr=False)
    engine_listing: str | None = field(repr=False)
    """What ``docker ps`` said of the server's containers, None if there is no Docker to ask."""

    @property
    def failed(self) -> int:
        """How many operations failed."""
        return sum(sample.failure is not None for sample in self.samples)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data; times in seconds."""
        return {
            "profile": self.profile,
            "server": self.server,
            "version": self.version,
            "projects": self.projects,
            "tasks": self.tasks,
            "started_at": self.started_at.isoformat(),
            "wall_seconds": round(self.wall_seconds, 3),
            "failed": self.failed,
            "operations": [_operation(one) for one in latencies(self.samples)],
            "containers": [
                {"project": one.project, "name": one.name, "phase": one.phase}
                for one in self.containers
            ],
            "readings": [
                {
                    "at_seconds": round(one.at_seconds, 1),
                    "resident_bytes": one.resident_bytes,
                    "open_fds": one.open_fds,
                }
                for one in self.readings
            ],
        }


def _operation(one: Latencies) -> dict[str, Any]:
    good = one.count - one.failed
    times = {**one.shares, "max": one.longest}
    return {
        "operation": one.operation,
        "count": one.count,
        "failures": dict(one.failures),
        # JSON knows no NaN: where nothing succeeded there is no latency.
        "seconds": {name: round(value, 4) if good else None for name, value in times.items()},
    }
