"""Logs and metrics. Log events are ``noun.past_verb`` with keys; metrics are named in one place."""

import logging
import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta

import structlog
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_EXEC_BUCKETS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60)
_IDLE_STEPS = (
    (timedelta(minutes=5), "under_5m"),
    (timedelta(minutes=30), "5m_to_30m"),
    (timedelta(hours=24), "30m_to_24h"),
)
_IDLE_LAST = "over_24h"


def configure_logging(level: str = "info", form: str = "console") -> None:
    """Send all logs to stderr: *form* ``console`` for people, ``json`` one object a line.

    Control characters and newlines in values are escaped in both, so that no value forges a line.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.processors.KeyValueRenderer(
            key_order=["timestamp", "level", "event"], drop_missing=True
        )
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for noisy in ("uvicorn.access", "httpx", "httpcore", "websockets", "aiosqlite", "alembic"):
        logging.getLogger(noisy).setLevel(max(number, logging.WARNING))


class Metrics:
    """What Prometheus may read. One object per server, so that tests share nothing."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._containers = Gauge(
            "anyon_containers_total",
            "Number of running containers",
            ["status"],
            registry=self.registry,
        )
        self._idle = Gauge(
            "anyon_idle_containers_total",
            "Number of idle containers by duration",
            ["idle_duration"],
            registry=self.registry,
        )
        self._exec = Histogram(
            "anyon_container_exec_duration_seconds",
            "How long processes ran in containers",
            ["project_id", "status"],
            buckets=_EXEC_BUCKETS,
            registry=self.registry,
        )
        self._requests = Histogram(
            "anyon_http_request_duration_seconds",
            "How long HTTP requests took",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._streams = Gauge(
            "anyon_streams_open", "Number of open streams", ["stream"], registry=self.registry
        )
        self.set_containers({})
        self.set_idle(())

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
        self._exec.labels(project_id, status).observe(max(0.0, length.total_seconds()))

    def project_deleted(self, project_id: str) -> None:
        """Forget a project's series, so that their number stays bounded."""
        for status in ("completed", "failed", "killed"):
            self._exec.remove(project_id, status)

    def request_served(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; *route* is the template, never a path with ids."""
        self._requests.labels(method, route, str(status)).observe(seconds)

    def stream_opened(self, stream: str) -> None:
        """Count a stream in."""
        self._streams.labels(stream).inc()

    def stream_closed(self, stream: str) -> None:
        """Count a stream out."""
        self._streams.labels(stream).dec()

    def render(self) -> bytes:
        """Return the text that Prometheus reads."""
        return generate_latest(self.registry)


def idle_bucket(idle: timedelta) -> str:
    """Return the label of an idle time."""
    return next((name for limit, name in _IDLE_STEPS if idle < limit), _IDLE_LAST)
