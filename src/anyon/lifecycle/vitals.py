"""What Prometheus may read of the copies of the server's own state."""

import math
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge


class StateVitals:
    """Registered on a server's registry only where its state is copied."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._follows = Gauge(
            "anyon_state_replicating",
            "Whether Litestream follows the server's database; NaN where it is not to",
            registry=registry,
        )
        self._replicated = Gauge(
            "anyon_state_replica_timestamp_seconds",
            "When the store last had all that Litestream wrote; NaN where it is not to",
            registry=registry,
        )
        self._snapshot = Gauge(
            "anyon_state_snapshot_timestamp_seconds",
            "When the last whole copy of the server's database was confirmed; NaN before the first",
            registry=registry,
        )
        self._restarts = Counter(
            "anyon_state_replicator_restarts_total",
            "How often Litestream ended by itself",
            registry=registry,
        )

        for gauge in (self._follows, self._replicated, self._snapshot):
            gauge.set(math.nan)

    def follows(self, *, is_following: bool) -> None:
        """Tell whether Litestream runs."""
        self._follows.set(is_following)

    def ended(self) -> None:
        """Count an end that nobody asked for."""
        self._follows.set(False)
        self._restarts.inc()

    def replicated(self, at: datetime) -> None:
        """Tell that the store has all that Litestream had written *at*."""
        self._replicated.set(at.timestamp())

    def snapshot_taken(self, at: datetime) -> None:
        """Tell that a whole copy as of *at* is in the store."""
        self._snapshot.set(at.timestamp())
