"""Dashboards about the server, its storage and its machine."""

from anyon.monitoring.panels import Dashboard, Panel, Query, p95, per_second

STORAGE = Dashboard(
    uid="anyon-storage",
    title="Anyon Storage",
    about="Saves and restores, the store behind them, and the disks.",
    panels=(
        Panel(
            title="Oldest work not saved",
            queries=(Query("anyon_checkpoint_age_seconds", "age"),),
            about="So much would be lost if the machine were lost now.",
            unit="s",
        ),
        Panel(
            title="Oldest work not saved by class",
            queries=(Query("anyon_checkpoint_class_age_seconds", "{{class}}"),),
            about="Active: held by somebody. Idle: awake, held by nobody. Stopped: not saved before it stopped.",
            unit="s",
        ),
        Panel(
            title="Save P95", queries=p95("anyon_checkpoint_duration_seconds", "reason"), unit="s"
        ),
        Panel(
            title="Saves per second",
            queries=per_second("anyon_checkpoint_duration_seconds_count", "reason"),
            unit="ops",
        ),
        Panel(
            title="Saved per second",
            queries=(
                Query("sum by (reason) (rate(anyon_checkpoint_new_bytes_total[5m]))", "{{reason}}"),
            ),
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
            title="Held still for a save, P95",
            queries=(
                Query(
                    "histogram_quantile(0.95, sum by (le) (rate(anyon_checkpoint_pause_seconds_bucket[5m])))",
                    "pause",
                ),
            ),
            unit="s",
        ),
        Panel(
            title="Restores",
            queries=(
                Query(
                    "sum by (reason) (increase(anyon_restore_duration_seconds_count[1h]))",
                    "{{reason}}",
                ),
            ),
        ),
        Panel(
            title="Failed restores",
            queries=(
                Query("sum by (reason) (increase(anyon_restore_failures_total[1h]))", "{{reason}}"),
            ),
        ),
        Panel(
            title="Upkeep",
            queries=(
                Query("sum by (what) (increase(anyon_collection_removed_total[1h]))", "{{what}}"),
                Query("increase(anyon_collection_failures_total[1h])", "failed"),
            ),
            about="Objects that collections removed from the store in an hour.",
        ),
        Panel(
            title="Restore drills",
            queries=(
                Query("sum by (outcome) (increase(anyon_restore_drills_total[1d]))", "{{outcome}}"),
            ),
            about="Restores made to prove that they are right, in a day.",
        ),
        Panel(
            title="Store call P95",
            queries=p95("anyon_store_duration_seconds", "operation"),
            about="Each try by itself, without waiting between tries.",
            unit="s",
        ),
        Panel(
            title="Store calls per second",
            queries=per_second("anyon_store_duration_seconds_count", "operation"),
            unit="ops",
        ),
        Panel(
            title="Store errors",
            queries=(
                Query(
                    "sum by (operation, code) (increase(anyon_store_errors_total[15m]))",
                    "{{operation}} {{code}}",
                ),
            ),
        ),
        Panel(
            title="Store traffic",
            queries=per_second("anyon_store_bytes_total", "direction"),
            unit="Bps",
        ),
        Panel(
            title="Disk of the home",
            queries=(
                Query("anyon_home_free_bytes", "free"),
                Query("anyon_home_size_bytes", "size"),
            ),
            unit="bytes",
        ),
        Panel(
            title="Database size",
            queries=(Query("anyon_database_size_bytes", "database"),),
            unit="bytes",
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
            title="Firing alerts",
            queries=(Query('sum(ALERTS{alertstate="firing"}) or vector(0)', "alerts"),),
            kind="stat",
        ),
        Panel(
            title="Requests per second",
            queries=per_second("anyon_http_request_duration_seconds_count", "method", "route"),
            unit="reqps",
        ),
        Panel(
            title="Request duration P95",
            queries=p95("anyon_http_request_duration_seconds", "route"),
            unit="s",
        ),
        Panel(
            title="Answers by status",
            queries=per_second("anyon_http_request_duration_seconds_count", "status"),
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
            title="Transaction P95",
            queries=p95("anyon_database_duration_seconds", "kind"),
            about="The database; waiting left out.",
            unit="s",
        ),
        Panel(
            title="Wait for the database P95",
            queries=p95("anyon_database_wait_seconds", "kind"),
            unit="s",
        ),
        Panel(
            title="Database connections",
            queries=(
                Query("anyon_database_connections_busy", "{{kind}} at work"),
                Query("anyon_database_connections_max", "{{kind}} at most"),
                Query("anyon_database_waiting", "{{kind}} waiting"),
            ),
        ),
        Panel(
            title="Database errors",
            queries=(
                Query("sum by (kind) (increase(anyon_database_errors_total[15m]))", "{{kind}}"),
            ),
        ),
        Panel(
            title="Machine: CPU",
            queries=(
                Query(
                    '1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[5m]))',
                    "busy",
                ),
            ),
            unit="percentunit",
        ),
        Panel(
            title="Machine: memory",
            queries=(
                Query("node_memory_MemAvailable_bytes", "available"),
                Query("node_memory_MemTotal_bytes", "all"),
            ),
            unit="bytes",
        ),
        Panel(
            title="Machine: load",
            queries=(
                Query("node_load1", "1 minute"),
                Query('count by (instance) (node_cpu_seconds_total{mode="idle"})', "cores"),
            ),
        ),
        Panel(
            title="Machine: disk traffic",
            queries=(
                Query("sum by (instance) (rate(node_disk_read_bytes_total[5m]))", "read"),
                Query("sum by (instance) (rate(node_disk_written_bytes_total[5m]))", "written"),
            ),
            unit="Bps",
        ),
        Panel(
            title="Watched",
            queries=(Query("up", "{{job}} {{instance}}"),),
            about="1: the last scrape of it succeeded.",
        ),
    ),
)
