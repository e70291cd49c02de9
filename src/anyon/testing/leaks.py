"""Whether something grows that should not: readings of a server at rest, and a judgement of their trend."""

import os
import sqlite3
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

QUANTITIES = (
    "memory_bytes",
    "file_descriptors",
    "threads",
    "zombies",
    "cgroups",
    "networks",
    "loop_devices",
    "rows",
    "disk_bytes",
)

ALLOWED_PER_THOUSAND: Mapping[str, float] = {
    "memory_bytes": 1_000_000,
    "file_descriptors": 0.5,
    "threads": 0.5,
    "zombies": 0.2,
    "cgroups": 0.5,
    "networks": 0.2,
    "loop_devices": 0.2,
    "rows": 5,
    "disk_bytes": 2_000_000,
}
"""What a quantity may grow by in a thousand tasks and still be called flat: a leak of one row or
one descriptor a task is far above it, two kilobytes a task are twice as much, the wander of an allocator is below.

Rows and files of a project's tasks are its history and stay as long as it does. So they are judged where
projects come and go at one rate: once as many went as there are, neither grows.
"""

KEPT_BY_TIME = ("litestream", "store/objects/server+")
"""Below the home: the last day's changes of the server's own database, and their copy in the store. They
grow for a day whatever is done, and are no part of ``disk_bytes``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The quantities (QUANTITIES) after so many tasks."""

    tasks: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """How a quantity went: its first and last value, and its growth in a thousand tasks.

    ``noise`` is what the middle half of the pairs' slopes strays by, for the reader.
    """

    quantity: str
    first: float
    last: float
    growth: float
    noise: float

    @property
    def is_flat(self) -> bool:
        """Whether it does not grow by more than is allowed."""
        return self.growth <= ALLOWED_PER_THOUSAND[self.quantity]


def trends(readings: Sequence[Reading], *, warm_up: float = 0.3) -> list[Trend]:
    """Return each quantity's trend by Theil and Sen's median of slopes, the *warm_up* share left out.

    The median does not mind a few readings that caught something in passing. Needs five readings
    after the warm-up; ValueError for fewer.
    """
    kept = readings[int(len(readings) * warm_up) :]
    if len(kept) < 5:
        raise ValueError(f"{len(kept)} readings after the warm-up say nothing of a trend")
    return [_trend(quantity, kept) for quantity in QUANTITIES]


def _trend(quantity: str, readings: Sequence[Reading]) -> Trend:
    slopes = sorted(
        1000 * (later.values[quantity] - earlier.values[quantity]) / (later.tasks - earlier.tasks)
        for earlier, later in combinations(readings, 2)
    )
    quarter = len(slopes) // 4
    return Trend(
        quantity=quantity,
        first=readings[0].values[quantity],
        last=readings[-1].values[quantity],
        growth=statistics.median(slopes),
        noise=(slopes[-1 - quarter] - slopes[quarter]) / 2,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whose quantities are read: the server's process, its home, and what its control groups are named by.

    ``marks`` are the ids of every project and container that it ever had; ``instance`` is the value
    of the label ``dev.anyon.instance`` of its Docker networks, empty for an engine without any.
    """

    pid: int
    home: Path
    marks: frozenset[str]
    instance: str = ""


def read(subject: Subject, tasks: int) -> Reading:
    """Read a server's quantities now, after so many *tasks*."""
    pid, home = subject.pid, subject.home
    process = Path(f"/proc/{pid}")
    status = dict(
        line.split(":\t", 1)
        for line in (process / "status").read_text().splitlines()
        if ":\t" in line
    )
    values = {
        "memory_bytes": float(status["VmRSS"].split()[0]) * 1024,
        "file_descriptors": float(sum(1 for _ in (process / "fd").iterdir())),
        "threads": float(status["Threads"]),
        "zombies": float(_zombies_under(pid)),
        "cgroups": float(_cgroups(subject.marks)),
        "networks": float(_networks(subject.instance)),
        "loop_devices": float(len(list(Path("/sys/block").glob("loop*/loop/backing_file")))),
        "rows": float(_rows(home / "anyon.db")),
        "disk_bytes": float(_bytes_below(home)),
    }
    return Reading(tasks=tasks, values=values)


def _zombies_under(pid: int) -> int:
    """Count the dead and unreaped among the children of *pid* and their children."""
    parents: dict[int, list[int]] = {}
    dead = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        parents.setdefault(int(fields[1]), []).append(int(entry.name))
        if fields[0] == "Z":
            dead.add(int(entry.name))
    found, left = 0, [pid]
    while left:
        for child in parents.get(left.pop(), []):
            found += child in dead
            left.append(child)
    return found


def _cgroups(marks: frozenset[str]) -> int:
    """Count the control groups, of any version, that are named by a mark."""
    return sum(
        any(mark in name for mark in marks)
        for _, names, _ in os.walk("/sys/fs/cgroup")
        for name in names
    )


def _networks(instance: str) -> int:
    if not instance:
        return 0
    done = subprocess.run(
        ["docker", "network", "ls", "-q", "--filter", f"label=dev.anyon.instance={instance}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return len(done.stdout.split())


def _rows(database: Path) -> int:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = [name for (name,) in names if not name.startswith("sqlite_")]
        counted = (connection.execute(f'SELECT count(*) FROM "{name}"') for name in tables)  # noqa: S608 - the schema's own names
        total = sum(row[0] for cursor in counted for row in cursor)
    connection.close()
    return int(total)


def _bytes_below(home: Path) -> int:
    """Return the bytes that the home takes on disk, KEPT_BY_TIME left out; what goes while we look is no part of it."""
    total = 0
    left_out = {home / name for name in KEPT_BY_TIME}
    for where, below, names in os.walk(home):
        below[:] = [name for name in below if Path(where, name) not in left_out]
        for name in names:
            try:
                total += os.lstat(Path(where) / name).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
