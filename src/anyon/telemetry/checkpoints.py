"""What is measured of checkpoints: saves, restores, collections, proofs.

*reason* says why a save was made: at an interval, at the end of work, at a step down, asked for; *kind* is the
project's class (``CLASSES``) at that moment.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from anyon.domain.errors import AnyonError, ConflictError, NotFoundError
from anyon.telemetry.scenes import CLASSES
from anyon.telemetry.traces import exemplar

SAVES = (
    "interval",
    "work_ended",
    "stop",
    "asked",
    "archive",
    "before_restore",
    "restored",
    "delete",
)
"""Why saves are made."""
RESTORES = ("wake", "asked", "entry", "drill")
"""What restores are for: a project's next work, going back, one path, a proof."""
OUTCOMES = ("proven", "failed", "skipped")
"""How restore drills end."""
LOOKS = ("journal", "scan")
"""How it is found what a held project has changed."""
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
_PAUSES = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class CheckpointMetrics:
    """The series of one server's work with its store; labels that are known begin at 0."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(name, words, labels, registry=registry)

        def seconds(name: str, words: str, *labels: str) -> Histogram:
            return Histogram(name, words, labels, buckets=_SECONDS, registry=registry)

        self._saves = seconds(
            "anyon_checkpoint_duration_seconds", "How long confirmed saves took", "reason"
        )
        self._save_failures = counter(
            "anyon_checkpoint_failures_total", "Saves that failed", "reason"
        )
        self._saved_bytes = counter(
            "anyon_checkpoint_new_bytes_total", "Bytes that saves added to the store", "reason"
        )
        # By class apart from by reason: both together would be hundreds of series.
        self._class_saves = seconds(
            "anyon_checkpoint_class_duration_seconds",
            "How long confirmed saves took, by class of project",
            "class",
        )
        self._class_failures = counter(
            "anyon_checkpoint_class_failures_total", "Saves that failed, by class", "class"
        )
        self._class_bytes = counter(
            "anyon_checkpoint_class_new_bytes_total",
            "Bytes that saves added to the store, by class",
            "class",
        )
        self._pauses = Histogram(
            "anyon_checkpoint_pause_seconds",
            "How long running projects were held still for a save",
            ("reason",),
            buckets=_PAUSES,
            registry=registry,
        )
        self._looks = counter(
            "anyon_checkpoint_looks_total",
            "Saves of projects held still, by how it was found what had changed",
            "look",
        )
        for look in LOOKS:
            self._looks.labels(look)
        self._restores = seconds(
            "anyon_restore_duration_seconds", "How long restores took", "reason"
        )
        self._restore_failures = counter(
            "anyon_restore_failures_total", "Restores that failed", "reason"
        )
        self._collections = seconds(
            "anyon_collection_duration_seconds", "How long collections of one project took"
        )
        self._collection_failures = counter(
            "anyon_collection_failures_total", "Collections that failed"
        )
        self._collected = counter(
            "anyon_collection_removed_total", "Objects that collections removed", "what"
        )
        self._collected_bytes = counter(
            "anyon_collection_removed_bytes_total", "Bytes that collections removed"
        )
        self._forks = counter("anyon_forks_total", "Projects that were made as forks")
        self._drills = counter("anyon_restore_drills_total", "Restore drills by outcome", "outcome")
        self._proven = Gauge(
            "anyon_last_proven_restore_timestamp_seconds",
            "When a restore was last proven to be right; NaN before the first",
            registry=registry,
        )
        self._proven.set(math.nan)
        for reason in SAVES:
            for one in (self._saves, self._save_failures, self._saved_bytes, self._pauses):
                one.labels(reason)
        for kind in CLASSES:
            for one in (self._class_saves, self._class_failures, self._class_bytes):
                one.labels(kind)
        for reason in RESTORES:
            self._restores.labels(reason)
            self._restore_failures.labels(reason)
        for what in ("checkpoint", "pack"):
            self._collected.labels(what)
        for outcome in OUTCOMES:
            self._drills.labels(outcome)

    def saved(self, reason: str, kind: str, seconds: float, new_bytes: int) -> None:
        """Count a confirmed save of a project of that class, and what it added to the store."""
        self._class_saves.labels(kind).observe(seconds, exemplar())
        self._class_bytes.labels(kind).inc(new_bytes)
        self._saves.labels(reason).observe(seconds, exemplar())
        self._saved_bytes.labels(reason).inc(new_bytes)

    def save_failed(self, reason: str, kind: str) -> None:
        """Count a save of a project of that class that failed."""
        self._class_failures.labels(kind).inc()
        self._save_failures.labels(reason).inc()

    def paused(self, reason: str, seconds: float, look: str) -> None:
        """Count how long a running project was held still for a save; 0 is no pause."""
        if seconds:
            self._pauses.labels(reason).observe(seconds)
            self._looks.labels(look).inc()

    def restored(self, reason: str, seconds: float) -> None:
        """Count a restore."""
        self._restores.labels(reason).observe(seconds, exemplar())

    def restore_failed(self, reason: str) -> None:
        """Count a restore that failed."""
        self._restore_failures.labels(reason).inc()

    @contextmanager
    def choosing(self, reason: str) -> Iterator[None]:
        """Count a restore that fails in the block, which finds what to restore.

        That there is no such checkpoint, or that the project is another server's, is an answer.
        """
        try:
            yield
        except (NotFoundError, ConflictError):
            raise
        except AnyonError:
            self.restore_failed(reason)
            raise

    def collected(self, seconds: float, *, checkpoints: int, packs: int, size_bytes: int) -> None:
        """Count a collection of one project, and what it removed."""
        self._collections.observe(seconds)
        self._collected.labels("checkpoint").inc(checkpoints)
        self._collected.labels("pack").inc(packs)
        self._collected_bytes.inc(size_bytes)

    def collection_failed(self) -> None:
        """Count a collection that failed."""
        self._collection_failures.inc()

    def forked(self) -> None:
        """Count a fork."""
        self._forks.inc()

    def drilled(self, outcome: str) -> None:
        """Count a restore drill; *outcome* is one of ``OUTCOMES``."""
        self._drills.labels(outcome).inc()

    def proven(self, at: datetime) -> None:
        """Tell when a restore was last proven to be right."""
        self._proven.set(at.timestamp())
