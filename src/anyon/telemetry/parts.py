"""What the parts below the services tell of themselves: the database and the object store."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_QUERY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_STORE_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
KINDS = ("read", "write")
OPERATIONS = ("put", "get", "head", "list", "delete")
STORE_ERRORS = ("store_unavailable", "store_refused", "damaged", "other")


class MountMetrics:
    """What becomes of the mounted bucket; NaN where none is set."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._up = Gauge(
            "anyon_mount_up",
            "Whether the mounted bucket answers; NaN without one",
            registry=registry,
        )
        self._up.set(float("nan"))
        self._mounts = Counter(
            "anyon_mount_mounts_total", "Times that the bucket was mounted", registry=registry
        )
        self._failures = Counter(
            "anyon_mount_failures_total", "Times that mounting failed", registry=registry
        )
        self._restarts = Counter(
            "anyon_mount_restarts_total",
            "Containers restarted because they showed a dead mount",
            registry=registry,
        )

    def seen(self, *, is_alive: bool) -> None:
        """Tell what a look has found."""
        self._up.set(is_alive)

    def mounted(self) -> None:
        """Count a mounting."""
        self._mounts.inc()

    def failed(self) -> None:
        """Count a mounting that failed."""
        self._failures.inc()

    def restarted(self) -> None:
        """Count a container's restart."""
        self._restarts.inc()


class DatabaseMetrics:
    """How long transactions wait for a thread and take, how many do, and how large it all is."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._durations = Histogram(
            "anyon_database_duration_seconds",
            "How long transactions took, waiting left out",
            ("kind",),
            buckets=_QUERY_BUCKETS,
            registry=registry,
        )
        self._waits = Histogram(
            "anyon_database_wait_seconds",
            "How long transactions waited for their turn",
            ("kind",),
            buckets=_QUERY_BUCKETS,
            registry=registry,
        )
        self._errors = Counter(
            "anyon_database_errors_total",
            "Transactions that the database failed",
            ("kind",),
            registry=registry,
        )
        self._busy = Gauge(
            "anyon_database_connections_busy", "Connections at work", ("kind",), registry=registry
        )
        self._waiting = Gauge(
            "anyon_database_waiting", "Transactions that wait", ("kind",), registry=registry
        )
        self._pool = Gauge(
            "anyon_database_connections_max", "Connections at most", ("kind",), registry=registry
        )
        self._size = Gauge("anyon_database_size_bytes", "Size of the database", registry=registry)
        self._pruned = Counter(
            "anyon_events_pruned_total",
            "Events of projects that were removed for their age",
            registry=registry,
        )
        for kind in KINDS:
            for metric in (self._durations, self._waits, self._errors, self._busy, self._waiting):
                metric.labels(kind)

    def has_pool(self, kind: str, connections: int) -> None:
        """Tell how many transactions of a kind can go on at once."""
        self._pool.labels(kind).set(connections)

    def has_size(self, size_bytes: int) -> None:
        """Tell how large the database is."""
        self._size.set(size_bytes)

    def pruned(self, events: int) -> None:
        """Count events that were removed for their age."""
        self._pruned.inc(events)

    def joined_line(self, kind: str) -> Callable[[], None]:
        """Count in one that waits for its turn; call what is returned when that has come, or never will."""
        began, here = time.perf_counter(), [kind]
        self._waiting.labels(kind).inc()

        def leave() -> None:
            with suppress(IndexError):
                here.pop()  # a thread and its caller may both come here; one of them counts
                self._waiting.labels(kind).dec()
                self._waits.labels(kind).observe(time.perf_counter() - began)

        return leave

    @contextmanager
    def at_work(self, kind: str) -> Iterator[None]:
        """Measure the block, which is one transaction."""
        began = time.perf_counter()
        self._busy.labels(kind).inc()
        try:
            yield
        finally:
            self._busy.labels(kind).dec()
            self._durations.labels(kind).observe(time.perf_counter() - began)

    def failed(self, kind: str) -> None:
        """Count a transaction that failed in the database (not one that its function gave up)."""
        self._errors.labels(kind).inc()


class StoreMetrics:
    """How long calls to the object store take, and which of them fail."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._durations = Histogram(
            "anyon_store_duration_seconds",
            "How long calls to the object store took, each try by itself",
            ("operation",),
            buckets=_STORE_BUCKETS,
            registry=registry,
        )
        self._errors = Counter(
            "anyon_store_errors_total",
            "Calls to the object store that failed, each try by itself",
            ("operation", "code"),
            registry=registry,
        )
        self._bytes = Counter(
            "anyon_store_bytes_total",
            "Bytes to and from the object store",
            ("direction",),
            registry=registry,
        )
        for operation in OPERATIONS:
            self._durations.labels(operation)
            for code in STORE_ERRORS:
                self._errors.labels(operation, code)
        for direction in ("in", "out"):
            self._bytes.labels(direction)

    def took(self, operation: str, seconds: float) -> None:
        """Count a call, whatever came of it."""
        self._durations.labels(operation).observe(seconds)

    def failed(self, operation: str, code: str) -> None:
        """Count a call that failed; a code that is not one of ``STORE_ERRORS`` is ``other``."""
        self._errors.labels(operation, code if code in STORE_ERRORS else "other").inc()

    def moved(self, direction: str, count: int) -> None:
        """Count bytes that came ``in`` from the store or went ``out`` to it."""
        self._bytes.labels(direction).inc(count)
