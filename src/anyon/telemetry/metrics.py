"""Metrics: all their names in one place, and what may be told of each."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.gc_collector import GCCollector
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from anyon.telemetry.checkpoints import CheckpointMetrics
from anyon.telemetry.parts import DatabaseMetrics, MountMetrics, StoreMetrics
from anyon.telemetry.scenes import CLASSES, Scene, Usages
from anyon.telemetry.traces import exemplar

_OPENMETRICS = "1.0.0"
_EXEC_BUCKETS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60)
_QUICK_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LONG_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
TIERS = ("new", "frozen", "stopped", "archived")
"""What a project is woken from."""
_TASK_TIERS = ("running", "frozen", "stopped", "archived")
_STREAMS = (
    "tasks",
    "processes",
    "drafts",
    "conversation",
    "output",
    "diff",
    "events",
    "project_events",
    "terminal",
)
_STEPS = (
    ("freeze", "idle"),
    ("stop", "idle"),
    ("archive", "idle"),
    ("save", "unsaved"),
    ("wake", "lease"),
)
_REPAIRS = ("changed_outside", "stopped_outside", "container_lost", "stop_interrupted")
_FORESIGHTS = ("asked", "failed", "late", "too_large", "refused")
_IDLE_STEPS = (
    (timedelta(minutes=5), "under_5m"),
    (timedelta(minutes=30), "5m_to_30m"),
    (timedelta(hours=24), "30m_to_24h"),
)
_IDLE_LAST = "over_24h"


class Metrics:
    """What Prometheus may read. One object per server, so that tests share nothing.

    Labels that are known beforehand have their series from the start, at 0: Prometheus sees a
    first event only as a change. Without *per_project* no label names a project.
    """

    def __init__(self, *, per_project: bool = True) -> None:
        self.registry = CollectorRegistry()
        self.per_project = per_project
        self._usages = Usages()
        self.registry.register(self._usages)
        self._measured: set[tuple[str, str]] = set()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._declare_scene()
        self._declare_work()
        self._declare_care()
        self.database = DatabaseMetrics(self.registry)
        self.store = StoreMetrics(self.registry)
        self.mount = MountMetrics(self.registry)
        self.checkpoints = CheckpointMetrics(self.registry)
        self.set_containers({})
        self.set_idle(())

    def _gauge(self, name: str, words: str, *labels: str) -> Gauge:
        return Gauge(name, words, labels, registry=self.registry)

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(name, words, labels, registry=self.registry)

    def _histogram(
        self, name: str, words: str, *labels: str, buckets: Sequence[float] = _QUICK_BUCKETS
    ) -> Histogram:
        return Histogram(name, words, labels, buckets=buckets, registry=self.registry)

    def _declare_scene(self) -> None:
        """Declare what is read at each scrape."""
        self._containers = self._gauge(
            "anyon_containers_total", "Number of running containers", "status"
        )
        self._idle = self._gauge(
            "anyon_idle_containers_total", "Number of idle containers by duration", "idle_duration"
        )
        self._engine_up = self._gauge("anyon_engine_up", "Whether the engine answers")
        self._phases = self._gauge("anyon_projects", "Projects by recorded phase", "phase")
        self._leases = self._gauge(
            "anyon_leases", "Holders that keep projects awake, by reason", "reason"
        )
        self._processes = self._gauge(
            "anyon_processes_running", "Processes that run, by reason", "run_reason"
        )
        self._queue = self._gauge(
            "anyon_queue_length", "Wakes that wait in the line for a place to run"
        )
        self._age = self._gauge(
            "anyon_checkpoint_age_seconds",
            "Age of the oldest work that no checkpoint holds yet; NaN where none are kept",
        )
        self._ages = self._gauge(
            "anyon_checkpoint_class_age_seconds",
            "Age of the oldest work that no checkpoint holds yet, by class of project",
            "class",
        )
        self._free = self._gauge("anyon_home_free_bytes", "Free space of the home's file system")
        self._size = self._gauge("anyon_home_size_bytes", "Size of the home's file system")

    def _declare_work(self) -> None:
        """Declare what is counted as users work."""
        self._exec = self._histogram(
            "anyon_container_exec_duration_seconds",
            "How long processes ran in containers",
            "project_id",
            "status",
            buckets=_EXEC_BUCKETS,
        )
        self._task_starts = self._histogram(
            "anyon_task_start_seconds",
            "From the request of an attempt to its first program, by what the project was in",
            "tier",
        )
        self._wakes = self._histogram(
            "anyon_wake_seconds",
            "From the wish to the running container, by what it was woken from",
            "tier",
            buckets=_LONG_BUCKETS,
        )
        for tier in TIERS:
            self._wakes.labels(tier)
        for tier in _TASK_TIERS:
            self._task_starts.labels(tier)
        self._requests = self._histogram(
            "anyon_http_request_duration_seconds",
            "How long HTTP requests took",
            "method",
            "route",
            "status",
        )
        self._streams = self._gauge("anyon_streams_open", "Number of open streams", "stream")
        for stream in _STREAMS:
            self._streams.labels(stream)

    def _declare_care(self) -> None:
        """Declare what is counted as the server looks after the projects."""
        self._steps = self._counter(
            "anyon_reconciler_steps_total", "Steps taken with projects", "step", "reason"
        )
        self._step_failures = self._counter(
            "anyon_reconciler_failures_total", "Steps with projects that failed"
        )
        self._repairs = self._counter(
            "anyon_reconciler_repairs_total", "Records that did not agree with the engine", "reason"
        )
        self._foresights = self._counter(
            "anyon_foresights_total",
            "Questions on a repository that were asked before a project fell asleep, by what became of them",
            "outcome",
        )
        self._lag = self._histogram(
            "anyon_event_loop_lag_seconds",
            "How late the event loop came round",
            buckets=_LAG_BUCKETS,
        )
        for step in _STEPS:
            self._steps.labels(*step)
        for reason in _REPAIRS:
            self._repairs.labels(reason)
        for outcome in _FORESIGHTS:
            self._foresights.labels(outcome)

    def show(self, scene: Scene) -> None:
        """Tell what is there now; what is not named is there no more."""
        self._engine_up.set(scene.containers is not None)
        if scene.containers is None:  # no number is better than one that may be wrong
            self._containers.clear()
            self._idle.clear()
        else:
            self.set_containers(scene.containers)
            self.set_idle(scene.idle)
        for gauge, counts in (
            (self._phases, scene.phases),
            (self._leases, scene.leases),
            (self._processes, scene.processes),
        ):
            gauge.clear()
            for name, count in counts.items():
                gauge.labels(name).set(count)
        self._queue.set(scene.queue_length)
        self.database.has_size(scene.database_bytes)
        ages = scene.checkpoint_ages
        self._age.set(math.nan if ages is None else max(map(_seconds, ages.values()), default=0))
        for name in CLASSES:
            age = math.nan if ages is None else _seconds(ages.get(name, timedelta(0)))
            self._ages.labels(name).set(age)
        self._free.set(scene.disk_free_bytes)
        self._size.set(scene.disk_size_bytes)
        told = self.per_project
        self._usages.by_project = scene.usage if told else {}
        self._usages.owners = scene.owners if told else {}
        self._usages.disk = scene.disk if told else {}
        for project_id in {project for project, _ in self._measured} - set(scene.owners):
            self.project_deleted(project_id)

    def set_containers(self, count_by_status: Mapping[str, int]) -> None:
        """Tell how many containers there are in each status; one not named is 0."""
        self._containers.clear()
        for status in ("running", "frozen", "stopped", *count_by_status):
            self._containers.labels(status).set(count_by_status.get(status, 0))

    def set_idle(self, idle_times: Iterable[timedelta]) -> None:
        """Tell for how long each idle container has been so."""
        counts = {name: 0 for _, name in _IDLE_STEPS} | {_IDLE_LAST: 0}
        for idle in idle_times:
            counts[idle_bucket(idle)] += 1
        for name, count in counts.items():
            self._idle.labels(name).set(count)

    def exec_ended(self, project_id: str, status: str, length: timedelta) -> None:
        """Count a process that ended after *length*."""
        name = "all"
        if self.per_project:
            name = project_id
            self._measured.add((project_id, status))
        self._exec.labels(name, status).observe(max(0.0, length.total_seconds()), exemplar())

    def project_deleted(self, project_id: str) -> None:
        """Forget a project's series, so that their number stays bounded."""
        for measured in [one for one in self._measured if one[0] == project_id]:
            self._exec.remove(*measured)
            self._measured.discard(measured)

    def task_started(self, tier: str, seconds: float) -> None:
        """Count an attempt's first program that runs *seconds* after the request."""
        self._task_starts.labels(tier).observe(seconds, exemplar())

    def woken(self, tier: str, seconds: float) -> None:
        """Count a container brought to RUNNING from *tier* (see ``TIERS``)."""
        self._wakes.labels(tier).observe(seconds, exemplar())

    def stepped(self, step: str, reason: str) -> None:
        """Count a step that was taken with a project."""
        self._steps.labels(step, reason).inc()

    def step_failed(self) -> None:
        """Count a step that could not be taken."""
        self._step_failures.inc()

    def repaired(self, reason: str) -> None:
        """Count a record that was brought to what the engine shows."""
        self._repairs.labels(reason).inc()

    def foresaw(self, outcome: str, count: int = 1) -> None:
        """Count what became of questions that a project that sleeps may be asked.

        ``refused`` is one that was asked then, and of which the answer was not kept.
        """
        self._foresights.labels(outcome).inc(count)

    def lagged(self, seconds: float) -> None:
        """Count how late the event loop was."""
        self._lag.observe(max(0.0, seconds))

    def request_served(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; *route* is the template, never a path with ids."""
        self._requests.labels(method, route, str(status)).observe(seconds, exemplar())

    def stream_opened(self, stream: str) -> None:
        """Count a stream in."""
        self._streams.labels(stream).inc()

    def stream_closed(self, stream: str) -> None:
        """Count a stream out."""
        self._streams.labels(stream).dec()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return what Prometheus reads, in the form that *accept* (the header) asks for, and its type.

        OpenMetrics, if it is asked for, carries exemplars: from a bucket to a trace or a request.
        """
        if accepts_openmetrics(accept):
            told: bytes = openmetrics.generate_latest(self.registry, version=_OPENMETRICS)  # type: ignore[no-untyped-call] # the library has no types there
            return told, f"application/openmetrics-text; version={_OPENMETRICS}; charset=utf-8"
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    def text(self) -> str:
        """Return all series in Prometheus's plain form."""
        return generate_latest(self.registry).decode()


def accepts_openmetrics(accept: str) -> bool:
    """Say whether an Accept header takes the OpenMetrics that we speak; one that is no header does not."""
    for part in accept.split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        if kind == "application/openmetrics-text":
            versions = [word for word in parameters if word.startswith("version=")]
            if versions in ([], [f"version={_OPENMETRICS}"]):
                return True
    return False


def _seconds(length: timedelta) -> float:
    return length.total_seconds()


def idle_bucket(idle: timedelta) -> str:
    """Return the label of an idle time."""
    return next((name for limit, name in _IDLE_STEPS if idle < limit), _IDLE_LAST)
