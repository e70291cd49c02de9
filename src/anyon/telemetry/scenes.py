"""What there is at the moment of a scrape, and the series of what containers use."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CLASSES = ("active", "idle", "stopped")
"""Classes of projects towards saving: held by somebody, awake and held by nobody, not awake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one container uses: CPU time and kills since its start, memory and processes now."""

    cpu_seconds: float
    memory_bytes: int
    pids: int
    oom_kills: int


class Usages(Collector):
    """What each project and its container use, as last seen; one that is not seen has no series."""

    def __init__(self) -> None:
        self.by_project: Mapping[str, Usage] = {}
        self.owners: Mapping[str, str] = {}
        self.disk: Mapping[str, int] = {}

    def collect(self) -> Iterable[Metric]:
        """Yield the series."""
        labels = ["project_id"]
        cpu = CounterMetricFamily("anyon_container_cpu_seconds", "CPU time used", labels=labels)
        kills = CounterMetricFamily(
            "anyon_container_oom_kills", "Kills for lack of memory", labels=labels
        )
        memory = GaugeMetricFamily("anyon_container_memory_bytes", "Memory in use", labels=labels)
        pids = GaugeMetricFamily("anyon_container_pids", "Processes and threads", labels=labels)
        for project, usage in self.by_project.items():
            cpu.add_metric([project], usage.cpu_seconds)
            kills.add_metric([project], usage.oom_kills)
            memory.add_metric([project], usage.memory_bytes)
            pids.add_metric([project], usage.pids)
        yield from (cpu, kills, memory, pids)
        info = GaugeMetricFamily(
            "anyon_project_info", "Whose a project is; always 1", labels=["project_id", "user_id"]
        )
        for project, owner in self.owners.items():
            info.add_metric([project, owner], 1)
        disk = GaugeMetricFamily(
            "anyon_project_disk_bytes", "Disk in use, as last measured", labels=labels
        )
        for project, size in self.disk.items():
            disk.add_metric([project], size)
        yield from (info, disk)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is there at the moment of a scrape.

    ``containers`` counts them by status, None where the engine does not answer. ``phases``,
    ``leases`` and ``processes`` count projects by phase, holders and running processes by reason.
    ``checkpoint_ages`` are the ages of the oldest work that no checkpoint holds, by ``CLASSES``; None where none are
    kept. ``queue_length`` counts wakes that wait for a place. ``owners`` maps all projects
    that exist to their users, ``usage`` is what their containers use, ``disk`` what their files do.
    """

    containers: Mapping[str, int] | None
    idle: Sequence[timedelta] = ()
    phases: Mapping[str, int] = field(default_factory=dict)
    leases: Mapping[str, int] = field(default_factory=dict)
    processes: Mapping[str, int] = field(default_factory=dict)
    checkpoint_ages: Mapping[str, timedelta] | None = None
    queue_length: int = 0
    database_bytes: int = 0
    disk_free_bytes: int = 0
    disk_size_bytes: int = 0
    owners: Mapping[str, str] = field(default_factory=dict)
    disk: Mapping[str, int] = field(default_factory=dict)
    usage: Mapping[str, Usage] = field(default_factory=dict)
