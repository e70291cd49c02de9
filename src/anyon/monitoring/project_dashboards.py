"""Dashboards about projects: their containers, their lives, and whose they are."""

from grafana_foundation_sdk.models import units

from anyon.monitoring.panels import (
    Query,
    counted,
    curves,
    dashboard,
    heat,
    number,
    per_second,
    quantile,
    query,
    ranking,
)

_CPU = "rate(anyon_container_cpu_seconds_total[5m])"

CONTAINERS = dashboard(
    "anyon-containers",
    "Anyon Container Metrics",
    "Containers, and what runs in them.",
    curves(
        "Running Containers",
        query('anyon_containers_total{status="running"}', "running"),
        about="Containers that run, as the engine shows them; frozen ones are not among them.",
    ),
    curves(
        "Idle Containers",
        query("anyon_idle_containers_total", "{{idle_duration}}"),
        about="Containers that take up memory and are held by nobody, by how long.",
    ),
    curves(
        "Execution Duration P95",
        query(
            "histogram_quantile(0.95, rate(anyon_container_exec_duration_seconds_bucket[5m]))",
            "{{project_id}} {{status}}",
        ).exemplar(True),
        unit=units.Seconds,
        about="How long processes ran that ended in the last five minutes: 95 of 100 were quicker.",
    ),
    curves(
        "Containers by status",
        query("sum by (status) (anyon_containers_total)", "{{status}}"),
        about="Frozen ones take up memory and no CPU, stopped ones disk only.",
    ),
    curves(
        "Running processes",
        query("sum by (run_reason) (anyon_processes_running)", "{{run_reason}}"),
        about="Processes at work in all containers, by what they were started for.",
    ),
    heat(
        "How long processes ran",
        "anyon_container_exec_duration_seconds",
        about="All processes that ended, by how long they ran.",
    ),
    curves("CPU by container", query(_CPU, "{{project_id}}"), about="Cores in use."),
    curves(
        "Memory by container",
        query("anyon_container_memory_bytes", "{{project_id}}"),
        unit=units.BytesIEC,
        about="What the kernel counts for a container, caches of files included.",
    ),
    curves(
        "Processes and threads by container",
        query("anyon_container_pids", "{{project_id}}"),
        about="Each has a limit: one that is reached lets nothing more start in the project.",
    ),
    curves(
        "Kills for lack of memory",
        query("increase(anyon_container_oom_kills_total[15m])", "{{project_id}}"),
        red_from=1,
        about="Processes that the kernel killed in a quarter of an hour: less at once, or more container_memory.",
    ),
    curves(
        "Processes ended per second",
        per_second("anyon_container_exec_duration_seconds_count", "status"),
        unit=units.OpsPerSecond,
        about="Processes by how they ended.",
    ),
)

LIFECYCLE = dashboard(
    "anyon-lifecycle",
    "Anyon Lifecycle",
    "Projects falling asleep, waking, and being saved.",
    curves(
        "Projects by phase",
        query("anyon_projects", "{{phase}}"),
        about="What the server has recorded of each project.",
    ),
    number(
        "Stopped, not saved",
        query('anyon_projects{phase="stopped_unsaved"}', "projects"),
        red_from=1,
        about="Saving these is tried again until the store takes them.",
    ),
    curves(
        "Oldest work not saved",
        query("anyon_checkpoint_age_seconds", "age"),
        unit=units.Seconds,
        red_from=600,
        about="So much would be lost if the machine were lost now.",
    ),
    curves(
        "Task start P95",
        quantile("anyon_task_start_seconds", "tier"),
        unit=units.Seconds,
        about="From the request to the first program, by what the project was in.",
    ),
    heat(
        "Task starts",
        "anyon_task_start_seconds",
        about="All starts of attempts, by how long the first program took to run.",
    ),
    curves(
        "Wake P95",
        quantile("anyon_wake_seconds", "tier"),
        unit=units.Seconds,
        about="From the wish to the running container, by what it was woken from.",
    ),
    curves(
        "Held awake by",
        query("sum by (reason) (anyon_leases)", "{{reason}}"),
        about="Projects that somebody or something holds do not fall asleep.",
    ),
    curves(
        "Waiting for a place to run",
        query("anyon_queue_length", "wakes"),
        about="Only with max_running: more wait than may run at once.",
    ),
    curves(
        "Steps per second",
        per_second("anyon_reconciler_steps_total", "step", "reason"),
        unit=units.OpsPerSecond,
        about="What the server did to bring projects where they belong.",
    ),
    curves(
        "Repairs",
        counted("anyon_reconciler_repairs_total", "reason"),
        query("increase(anyon_reconciler_failures_total[15m])", "failed steps"),
        about="Records that did not agree with the engine: something acted behind the server's back.",
    ),
)

_OF_USER = "* on (job, instance, project_id) group_left (user_id) anyon_project_info"


def _by_user(values: str, how: str = "sum") -> Query:
    return query(f"{how} by (user_id) ({values} {_OF_USER})", "{{user_id}}")


TENANTS = dashboard(
    "anyon-tenants",
    "Anyon Tenants",
    "What each user's projects use, and which use most. Needs metrics_per_project.",
    curves(
        "Projects by user",
        query("count by (user_id) (anyon_project_info)", "{{user_id}}"),
        about="All projects, whatever phase they are in.",
    ),
    curves(
        "Containers in memory by user",
        _by_user("anyon_container_pids", "count"),
        about="Running and frozen ones.",
    ),
    curves("CPU by user", _by_user(_CPU), about="Cores in use."),
    curves(
        "Memory by user",
        _by_user("anyon_container_memory_bytes"),
        unit=units.BytesIEC,
        about="What the kernel counts for a user's containers.",
    ),
    curves(
        "Disk by user",
        _by_user("anyon_project_disk_bytes"),
        unit=units.BytesIEC,
        about="As last measured: some minutes after anything happened in a project.",
    ),
    curves(
        "Processes and threads by user",
        _by_user("anyon_container_pids"),
        about="In all of a user's containers.",
    ),
    ranking(
        "Busiest projects",
        _CPU,
        "project_id",
        unit=units.Short,
        about="The ten that use most CPU, in cores.",
    ),
    ranking(
        "Largest in memory",
        "anyon_container_memory_bytes",
        "project_id",
        unit=units.BytesIEC,
        about="The ten whose containers take up most memory.",
    ),
    ranking(
        "Largest on disk",
        "anyon_project_disk_bytes",
        "project_id",
        unit=units.BytesIEC,
        about="The ten that take up most disk.",
    ),
    ranking(
        "Most processes ended per second",
        "rate(anyon_container_exec_duration_seconds_count[5m])",
        "project_id",
        unit=units.OpsPerSecond,
        about="The ten that start most: many short ones cost more than a long one.",
    ),
    curves(
        "Kills for lack of memory by user",
        _by_user("increase(anyon_container_oom_kills_total[1h])"),
        about="Processes that the kernel killed in an hour.",
    ),
)
