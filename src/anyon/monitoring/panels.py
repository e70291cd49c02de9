"""Which dashboards there are, and what each of their panels asks of Prometheus."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Query:
    """An expression, and the legend of each series it returns (``{{label}}`` is filled in)."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture: a curve (``timeseries``) or a number (``stat``); ``unit`` in Grafana's words."""

    title: str
    queries: Sequence[Query]
    about: str = ""
    unit: str = "short"
    kind: Literal["timeseries", "stat"] = "timeseries"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """Panels under one title, in order. ``uid`` is its stable name in Grafana's addresses."""

    uid: str
    title: str
    about: str
    panels: Sequence[Panel]


def _p95(metric: str, label: str) -> Sequence[Query]:
    rates = f"sum by ({label}, le) (rate({metric}_bucket[5m]))"
    return (Query(f"histogram_quantile(0.95, {rates})", f"{{{{{label}}}}}"),)


def _per_second(metric: str, *labels: str) -> Sequence[Query]:
    legend = " ".join(f"{{{{{label}}}}}" for label in labels)
    return (Query(f"sum by ({', '.join(labels)}) (rate({metric}[5m]))", legend),)


CONTAINERS = Dashboard(
    uid="anyon-containers",
    title="Anyon Container Metrics",
    about="Containers, and what runs in them.",
    panels=(
        Panel(
            title="Running Containers",
            queries=(Query('anyon_containers_total{status="running"}', "running"),),
        ),
        Panel(
            title="Idle Containers",
            queries=(Query("anyon_idle_containers_total", "{{idle_duration}}"),),
            about="Containers that take up memory and are held by nobody, by how long.",
        ),
        Panel(
            title="Execution Duration P95",
            queries=(
                Query(
                    "histogram_quantile(0.95, rate(anyon_container_exec_duration_seconds_bucket[5m]))",
                    "{{project_id}} {{status}}",
                ),
            ),
            unit="s",
        ),
        Panel(
            title="Containers by status",
            queries=(Query("sum by (status) (anyon_containers_total)", "{{status}}"),),
        ),
        Panel(
            title="Running processes",
            queries=(Query("sum by (run_reason) (anyon_processes_running)", "{{run_reason}}"),),
        ),
        Panel(
            title="CPU by container",
            queries=(Query("rate(anyon_container_cpu_seconds_total[5m])", "{{project_id}}"),),
            about="Cores in use.",
        ),
        Panel(
            title="Memory by container",
            queries=(Query("anyon_container_memory_bytes", "{{project_id}}"),),
            unit="bytes",
        ),
        Panel(
            title="Processes and threads by container",
            queries=(Query("anyon_container_pids", "{{project_id}}"),),
        ),
        Panel(
            title="Kills for lack of memory",
            queries=(Query("increase(anyon_container_oom_kills_total[15m])", "{{project_id}}"),),
        ),
        Panel(
            title="Processes ended per second",
            queries=_per_second("anyon_container_exec_duration_seconds_count", "status"),
            unit="ops",
        ),
    ),
)

LIFECYCLE = Dashboard(
    uid="anyon-lifecycle",
    title="Anyon Lifecycle",
    about="Projects falling asleep, waking, and being saved.",
    panels=(
        Panel(title="Projects by phase", queries=(Query("anyon_projects", "{{phase}}"),)),
        Panel(
            title="Stopped, not saved",
            queries=(Query('anyon_projects{phase="stopped_unsaved"}', "projects"),),
            about="Saving these is tried again until the store takes them.",
            kind="stat",
        ),
        Panel(
            title="Oldest work not saved",
            queries=(Query("anyon_checkpoint_age_seconds", "age"),),
            about="So much would be lost if the machine were lost now.",
            unit="s",
        ),
        Panel(
            title="Task start P95",
            queries=_p95("anyon_task_start_seconds", "tier"),
            about="From the request to the first program, by what the project was in.",
            unit="s",
        ),
        Panel(title="Wake P95", queries=_p95("anyon_wake_seconds", "tier"), unit="s"),
        Panel(
            title="Held awake by",
            queries=(Query("sum by (reason) (anyon_leases)", "{{reason}}"),),
        ),
        Panel(
            title="Save P95", queries=_p95("anyon_checkpoint_duration_seconds", "reason"), unit="s"
        ),
        Panel(
            title="Saved per second",
            queries=(Query("rate(anyon_checkpoint_new_bytes_total[5m])", "new bytes"),),
            unit="Bps",
        ),
        Panel(
            title="Failed saves",
            queries=(
                Query(
                    "sum by (reason) (increase(anyon_checkpoint_failures_total[15m]))", "{{reason}}"
                ),
            ),
        ),
        Panel(
            title="Restores",
            queries=(Query("increase(anyon_restore_duration_seconds_count[1h])", "in an hour"),),
        ),
        Panel(
            title="Steps per second",
            queries=_per_second("anyon_reconciler_steps_total", "step", "reason"),
            unit="ops",
        ),
        Panel(
            title="Repairs",
            queries=(
                Query(
                    "sum by (reason) (increase(anyon_reconciler_repairs_total[15m]))", "{{reason}}"
                ),
                Query("increase(anyon_reconciler_failures_total[15m])", "failed steps"),
            ),
            about="Records that did not agree with the engine: something acted behind the server's back.",
        ),
    ),
)

SERVER = Dashboard(
    uid="anyon-server",
    title="Anyon Server",
    about="The server itself.",
    panels=(
        Panel(
            title="Up",
            queries=(
                Query('up{job="anyon-containers"}', "server"),
                Query("anyon_engine_up", "engine"),
            ),
            kind="stat",
        ),
        Panel(
            title="Requests per second",
            queries=_per_second("anyon_http_request_duration_seconds_count", "method", "route"),
            unit="reqps",
        ),
        Panel(
            title="Request duration P95",
            queries=_p95("anyon_http_request_duration_seconds", "route"),
            unit="s",
        ),
        Panel(
            title="Answers by status",
            queries=_per_second("anyon_http_request_duration_seconds_count", "status"),
            unit="reqps",
        ),
        Panel(
            title="Open streams",
            queries=(Query("sum by (stream) (anyon_streams_open)", "{{stream}}"),),
        ),
        Panel(
            title="Event loop lag",
            queries=(
                Query(
                    "histogram_quantile(0.99, sum by (le) (rate(anyon_event_loop_lag_seconds_bucket[5m])))",
                    "p99",
                ),
            ),
            unit="s",
        ),
        Panel(
            title="CPU",
            queries=(
                Query('rate(process_cpu_seconds_total{job="anyon-containers"}[5m])', "cores"),
            ),
        ),
        Panel(
            title="Memory",
            queries=(Query('process_resident_memory_bytes{job="anyon-containers"}', "resident"),),
            unit="bytes",
        ),
        Panel(
            title="Open files",
            queries=(
                Query('process_open_fds{job="anyon-containers"}', "open"),
                Query('process_max_fds{job="anyon-containers"}', "allowed"),
            ),
        ),
        Panel(
            title="Disk",
            queries=(
                Query("anyon_home_free_bytes", "free"),
                Query("anyon_home_size_bytes", "size"),
            ),
            unit="bytes",
        ),
    ),
)

DASHBOARDS = (CONTAINERS, LIFECYCLE, SERVER)
