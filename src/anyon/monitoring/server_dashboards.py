"""Dashboards about the server, its storage and its machine."""

from grafana_foundation_sdk.models import units

from anyon.monitoring.panels import (
    counted,
    curves,
    dashboard,
    heat,
    number,
    per_second,
    quantile,
    query,
)

STORAGE = dashboard(
    "anyon-storage",
    "Anyon Storage",
    "Saves and restores, the store behind them, and the disks.",
    curves(
        "Oldest work not saved by class",
        query("anyon_checkpoint_class_age_seconds", "{{class}}"),
        unit=units.Seconds,
        red_from=600,
        about="Active: held by somebody. Idle: awake, held by nobody. Stopped: not saved before it stopped.",
    ),
    curves(
        "Save P95",
        quantile("anyon_checkpoint_duration_seconds", "reason"),
        unit=units.Seconds,
        about="A whole save, from the look at the files to the store's word.",
    ),
    curves(
        "Held still for a save P95",
        quantile("anyon_checkpoint_pause_seconds"),
        unit=units.Seconds,
        about="How long running projects were frozen so that all files are of one instant.",
    ),
    curves(
        "Saves per second",
        per_second("anyon_checkpoint_duration_seconds_count", "reason"),
        unit=units.OpsPerSecond,
        about="Saves by why they were made.",
    ),
    curves(
        "Saved per second",
        per_second("anyon_checkpoint_new_bytes_total", "reason"),
        unit=units.BytesPerSecondSI,
        about="What was not in the store before; what is there already costs nothing.",
    ),
    curves(
        "Save P95 by class",
        quantile("anyon_checkpoint_class_duration_seconds", "class"),
        unit=units.Seconds,
        about="Active: held by somebody, so the work went on meanwhile; idle and stopped: nobody waited.",
    ),
    curves(
        "Saved per second by class",
        per_second("anyon_checkpoint_class_new_bytes_total", "class"),
        unit=units.BytesPerSecondSI,
        about="What is new in the store, by how the project stood.",
    ),
    curves(
        "Failed saves by class",
        counted("anyon_checkpoint_class_failures_total", "class"),
        about="In a quarter of an hour. Of active projects work is at stake that somebody does now.",
    ),
    curves(
        "Failed saves",
        counted("anyon_checkpoint_failures_total", "reason"),
        red_from=3,
        about="In a quarter of an hour. Former checkpoints are untouched, and each is tried again.",
    ),
    curves(
        "Restores",
        counted("anyon_restore_duration_seconds_count", "reason", within="1h"),
        about="In an hour: with the next work (wake), asked for, of one path (entry), for proof (drill).",
    ),
    curves(
        "Failed restores",
        counted("anyon_restore_failures_total", "reason", within="1h"),
        red_from=1,
        about="In an hour. The log says which and why.",
    ),
    curves(
        "Restore drills",
        counted("anyon_restore_drills_total", "outcome", within="1d"),
        about="Restores made to prove that they are right, in a day.",
    ),
    curves(
        "Upkeep",
        counted("anyon_collection_removed_total", "what", within="1h"),
        query("increase(anyon_collection_failures_total[1h])", "failed"),
        about="Objects that collections removed from the store in an hour.",
    ),
    curves(
        "Store call P95",
        quantile("anyon_store_duration_seconds", "operation"),
        unit=units.Seconds,
        about="Each try by itself, without waiting between tries.",
    ),
    curves(
        "Store calls per second",
        per_second("anyon_store_duration_seconds_count", "operation"),
        unit=units.OpsPerSecond,
        about="Each try counts; most stores ask for money by them.",
    ),
    curves(
        "Store errors",
        counted("anyon_store_errors_total", "operation", "code"),
        about="Tries that failed in a quarter of an hour; most succeed when tried again.",
    ),
    curves(
        "Store traffic",
        per_second("anyon_store_bytes_total", "direction"),
        unit=units.BytesPerSecondSI,
        about="What went to the store and came from it.",
    ),
    curves(
        "Disk of the home",
        query("anyon_home_free_bytes", "free"),
        query("anyon_home_size_bytes", "size"),
        unit=units.BytesIEC,
        about="The file system on which projects, worktrees and records lie.",
    ),
    curves(
        "Database size",
        query("anyon_database_size_bytes", "database"),
        unit=units.BytesIEC,
        about="The server's own records.",
    ),
)

_SERVER = 'job="anyon-containers"'

SERVER = dashboard(
    "anyon-server",
    "Anyon Server",
    "The server itself, and its machine.",
    number(
        "Up",
        query(f"up{{{_SERVER}}}", "server"),
        query("anyon_engine_up", "engine"),
        green_from=1,
        about="1: it answers. Containers and processes go on without the server.",
    ),
    number(
        "Firing alerts",
        query('sum(ALERTS{alertstate="firing"}) or vector(0)', "alerts"),
        red_from=1,
        about="Prometheus' page Alerts says which, what they mean, and what to do.",
    ),
    curves(
        "Watched",
        query("up", "{{job}} {{instance}}"),
        about="1: the last scrape of it succeeded.",
    ),
    curves(
        "Requests per second",
        per_second("anyon_http_request_duration_seconds_count", "method", "route"),
        unit=units.RequestsPerSecond,
        about="By route: the template, without ids.",
    ),
    curves(
        "Request duration P95",
        quantile("anyon_http_request_duration_seconds", "route"),
        unit=units.Seconds,
        about="Long polls wait on purpose: they are among the slow ones.",
    ),
    heat(
        "Requests",
        "anyon_http_request_duration_seconds",
        about="All requests, by how long they took.",
    ),
    curves(
        "Answers by status",
        per_second("anyon_http_request_duration_seconds_count", "status"),
        unit=units.RequestsPerSecond,
        about="From 500 on it is the server's fault, and the log has a line for each.",
    ),
    curves(
        "Open streams",
        query("sum by (stream) (anyon_streams_open)", "{{stream}}"),
        about="Clients that follow something.",
    ),
    curves(
        "Event loop lag",
        quantile("anyon_event_loop_lag_seconds", share=0.99),
        unit=units.Seconds,
        red_from=1,
        about="How late the loop came round: every request and stream waits as long.",
    ),
    curves(
        "CPU",
        query(f"rate(process_cpu_seconds_total{{{_SERVER}}}[5m])", "cores"),
        about="Cores in use by the server.",
    ),
    curves(
        "Memory",
        query(f"process_resident_memory_bytes{{{_SERVER}}}", "resident"),
        unit=units.BytesIEC,
        about="A line that goes on and on is a leak.",
    ),
    curves(
        "Open files",
        query(f"process_open_fds{{{_SERVER}}}", "open"),
        query(f"process_max_fds{{{_SERVER}}}", "allowed"),
        about="Files, sockets and pipes that the server holds.",
    ),
    curves(
        "Transaction P95",
        quantile("anyon_database_duration_seconds", "kind"),
        unit=units.Seconds,
        about="The database; waiting left out.",
    ),
    curves(
        "Wait for the database P95",
        quantile("anyon_database_wait_seconds", "kind"),
        unit=units.Seconds,
        red_from=1,
        about="How long transactions stood in line.",
    ),
    curves(
        "Database connections",
        query("anyon_database_connections_busy", "{{kind}} at work"),
        query("anyon_database_connections_max", "{{kind}} at most"),
        query("anyon_database_waiting", "{{kind}} waiting"),
        about="With all at work the next one waits.",
    ),
    curves(
        "Database errors",
        counted("anyon_database_errors_total", "kind"),
        about="Transactions that failed in a quarter of an hour.",
    ),
    curves(
        "Machine: CPU",
        query('1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[5m]))', "busy"),
        unit=units.PercentUnit,
        about="All cores together.",
    ),
    curves(
        "Machine: memory",
        query("node_memory_MemAvailable_bytes", "available"),
        query("node_memory_MemTotal_bytes", "all"),
        unit=units.BytesIEC,
        about="What programs may still take without swapping.",
    ),
    curves(
        "Machine: load",
        query("node_load1", "1 minute"),
        query('count by (instance) (node_cpu_seconds_total{mode="idle"})', "cores"),
        about="More load than cores: programs wait for their turn.",
    ),
    curves(
        "Machine: disk traffic",
        query("sum by (instance) (rate(node_disk_read_bytes_total[5m]))", "read"),
        query("sum by (instance) (rate(node_disk_written_bytes_total[5m]))", "written"),
        unit=units.BytesPerSecondSI,
        about="All disks together.",
    ),
)
