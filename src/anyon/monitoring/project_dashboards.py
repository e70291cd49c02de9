"""Dashboards about projects: their containers, their lives, and whose they are."""

from collections.abc import Sequence

from anyon.monitoring.panels import Dashboard, Panel, Query, p95, per_second

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
            queries=per_second("anyon_container_exec_duration_seconds_count", "status"),
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
            queries=p95("anyon_task_start_seconds", "tier"),
            about="From the request to the first program, by what the project was in.",
            unit="s",
        ),
        Panel(title="Wake P95", queries=p95("anyon_wake_seconds", "tier"), unit="s"),
        Panel(
            title="Held awake by",
            queries=(Query("sum by (reason) (anyon_leases)", "{{reason}}"),),
        ),
        Panel(
            title="Waiting for a place to run",
            queries=(Query("anyon_queue_length", "wakes"),),
            about="Only with max_running: more wait than may run at once.",
        ),
        Panel(
            title="Steps per second",
            queries=per_second("anyon_reconciler_steps_total", "step", "reason"),
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

_OF_USER = "* on (job, instance, project_id) group_left (user_id) anyon_project_info"


def _by_user(values: str, how: str = "sum") -> Sequence[Query]:
    return (Query(f"{how} by (user_id) ({values} {_OF_USER})", "{{user_id}}"),)


def _largest(values: str) -> Sequence[Query]:
    return (Query(f"topk(10, {values})", "{{project_id}}"),)


TENANTS = Dashboard(
    uid="anyon-tenants",
    title="Anyon Tenants",
    about="What each user's projects use, and which use most. Needs metrics_per_project.",
    panels=(
        Panel(
            title="Projects by user",
            queries=(Query("count by (user_id) (anyon_project_info)", "{{user_id}}"),),
        ),
        Panel(
            title="Containers in memory by user",
            queries=_by_user("anyon_container_pids", "count"),
        ),
        Panel(
            title="CPU by user",
            queries=_by_user("rate(anyon_container_cpu_seconds_total[5m])"),
            about="Cores in use.",
        ),
        Panel(
            title="Memory by user",
            queries=_by_user("anyon_container_memory_bytes"),
            unit="bytes",
        ),
        Panel(
            title="Disk by user",
            queries=_by_user("anyon_project_disk_bytes"),
            about="As last measured: some minutes after anything happened in a project.",
            unit="bytes",
        ),
        Panel(
            title="Processes and threads by user",
            queries=_by_user("anyon_container_pids"),
        ),
        Panel(
            title="Busiest projects",
            queries=_largest("rate(anyon_container_cpu_seconds_total[5m])"),
            about="The ten that use most CPU, in cores.",
        ),
        Panel(
            title="Largest in memory",
            queries=_largest("anyon_container_memory_bytes"),
            unit="bytes",
        ),
        Panel(title="Largest on disk", queries=_largest("anyon_project_disk_bytes"), unit="bytes"),
        Panel(
            title="Processes ended per second",
            queries=_largest(
                "sum by (project_id) (rate(anyon_container_exec_duration_seconds_count[5m]))"
            ),
            unit="ops",
        ),
        Panel(
            title="Kills for lack of memory by user",
            queries=_by_user("increase(anyon_container_oom_kills_total[1h])"),
        ),
    ),
)
