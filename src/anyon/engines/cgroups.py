"""Control groups, versions 1 and 2: where a sandbox's processes are counted, limited and frozen.

Parsing and the choice of what to write are pure; ``Group`` acts on the files.
"""

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anyon.domain.errors import EngineFailedError
from anyon.engines.engine import Limits, Stats
from anyon.urgency import urgent

CONTROLLERS = ("freezer", "memory", "pids", "cpu", "cpuacct")
_PERIOD = 100_000
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Where control groups are mounted: each controller of version 1, and version 2."""

    v1: Mapping[str, Path] = field(default_factory=dict)
    v2: Path | None = None

    @property
    def version(self) -> int | None:
        """Which version can freeze: 1 where its freezer is mounted, else 2, else None."""
        if "freezer" in self.v1:
            return 1
        return 2 if self.v2 is not None else None


def parse_mounts(mountinfo: str) -> Hierarchies:
    """Read the control groups' mounts out of ``/proc/self/mountinfo``."""
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if len(fields) < 5 or len(tail) < 3:
            continue
        place = Path(fields[4].encode().decode("unicode_escape"))
        if tail[0] == "cgroup2":
            v2 = v2 or place
        elif tail[0] == "cgroup":
            for option in tail[2].split(","):
                if option in CONTROLLERS:
                    v1.setdefault(option, place)
    return Hierarchies(v1, v2)


def parse_flat(text: str) -> Mapping[str, int]:
    """Read lines of a name and a number (``memory.stat``, ``memory.events``, ``cpu.stat``)."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.strip().lstrip("-").isdigit():
            found[name] = int(value)
    return found


def member_pids(group: Path) -> Sequence[int] | None:
    """Return the processes in a control group and in those below it; None if one is not visible here."""
    pids = [
        int(line)
        for file in (group / "cgroup.procs", *group.glob("*/**/cgroup.procs"))
        for line in file.read_text().splitlines()
    ]
    return None if 0 in pids else pids


def limit_files(limits: Limits, version: int) -> Sequence[tuple[str, str, str, bool]]:
    """Return what to write for *limits*: controller, file, text, and whether it may be missing."""
    found: list[tuple[str, str, str, bool]] = []
    if limits.memory_bytes is not None:
        size = str(limits.memory_bytes)
        if version == 1:
            # Memory alone may never be more than memory with swap, whatever stood there before.
            found.append(("memory", "memory.memsw.limit_in_bytes", "-1", True))
            found.append(("memory", "memory.limit_in_bytes", size, False))
            found.append(("memory", "memory.memsw.limit_in_bytes", size, True))
        else:
            found.append(("memory", "memory.max", size, False))
            found.append(("memory", "memory.swap.max", "0", True))
    if limits.pids is not None:
        found.append(("pids", "pids.max", str(limits.pids), False))
    if limits.cpus is not None:
        quota = max(1000, round(limits.cpus * _PERIOD))
        if version == 1:
            found.append(("cpu", "cpu.cfs_period_us", str(_PERIOD), False))
            found.append(("cpu", "cpu.cfs_quota_us", str(quota), False))
        else:
            found.append(("cpu", "cpu.max", f"{quota} {_PERIOD}", False))
    return found


class Group:
    """One sandbox's control group: a directory of version 2, or one in each controller of 1."""

    def __init__(self, version: int, directories: Mapping[str, Path]) -> None:
        self.version = version
        self.directories = dict(directories)

    @property
    def joins(self) -> Sequence[Path]:
        """The files into which a process writes 0 to join."""
        return [place / "cgroup.procs" for place in dict.fromkeys(self.directories.values())]

    @property
    def counts(self) -> bool:
        """Whether memory and processes are counted here (the controllers are on)."""
        name = "memory.usage_in_bytes" if self.version == 1 else "memory.current"
        return bool(self._read("memory", name)) and bool(self._read("pids", "pids.current"))

    def limit(self, limits: Limits) -> Sequence[str]:
        """Set the limits; return the controllers that this machine does not offer here."""
        missing = []
        for controller, name, text, optional in limit_files(limits, self.version):
            place = self.directories.get(controller)
            if place is None or not (place / name).exists():
                if not optional:
                    missing.append(controller)
                continue
            (place / name).write_text(text)
        return sorted(set(missing))

    def freeze(self) -> None:
        """Freeze every member and return once none of them runs."""
        with urgent():
            self._set_frozen(True)

    def thaw(self) -> None:
        """Let every member run again."""
        with urgent():
            self._set_frozen(False)

    def pids(self) -> Sequence[int] | None:
        """Return its members' pids; None if one is not visible here."""
        return member_pids(self.directories["freezer"])

    @property
    def frozen(self) -> bool:
        """Whether the members are frozen (or on their way)."""
        if self.version == 1:
            return self._read("freezer", "freezer.state").strip() in {"FREEZING", "FROZEN"}
        return self._read("freezer", "cgroup.freeze").strip() == "1"

    def stats(self) -> Stats:
        """Return what the members use and, of memory and CPU, used."""
        memory = parse_flat(self._read("memory", "memory.stat"))
        if self.version == 1:
            used = self._number("memory", "memory.usage_in_bytes")
            idle = memory.get("total_inactive_file", 0)
            cpu = self._number("cpuacct", "cpuacct.usage") / 1e9
            kills = parse_flat(self._read("memory", "memory.oom_control")).get("oom_kill", 0)
        else:
            used = self._number("memory", "memory.current")
            idle = memory.get("inactive_file", 0)
            cpu = parse_flat(self._read("cpu", "cpu.stat")).get("usage_usec", 0) / 1e6
            kills = parse_flat(self._read("memory", "memory.events")).get("oom_kill", 0)
        return Stats(
            cpu_seconds=cpu,
            memory_bytes=max(0, used - idle),
            pids=self._number("pids", "pids.current"),
            oom_kills=kills,
        )

    def remove(self) -> None:
        """Remove the empty group; what is still in it keeps it (a later start takes it again)."""
        for place in dict.fromkeys(self.directories.values()):
            deadline = time.monotonic() + 1.0
            while True:
                try:
                    place.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.005)
                else:
                    break

    def _set_frozen(self, wanted: bool) -> None:
        if self.version == 1:
            place, name = self.directories["freezer"], "freezer.state"
            text = reached = "FROZEN" if wanted else "THAWED"
        else:
            place, name = self.directories["freezer"], "cgroup.freeze"
            text, reached = ("1", "frozen 1") if wanted else ("0", "frozen 0")
        deadline = time.monotonic() + _PATIENCE
        while True:
            (place / name).write_text(text)
            state = (place / (name if self.version == 1 else "cgroup.events")).read_text()
            if reached in state.splitlines():
                return
            if time.monotonic() > deadline:
                if wanted:
                    self._set_frozen(False)
                raise EngineFailedError(
                    f"the container's control group did not become {reached.lower()}",
                    code="freeze_failed",
                    hint="A process may be stuck in the kernel (state D); try again.",
                )
            time.sleep(0.0005)

    def _read(self, controller: str, name: str) -> str:
        place = self.directories.get(controller)
        if place is None:
            return ""
        with contextlib.suppress(FileNotFoundError):
            return (place / name).read_text()
        return ""

    def _number(self, controller: str, name: str) -> int:
        text = self._read(controller, name).strip()
        return int(text) if text.isdigit() else 0


def group_named(hierarchies: Hierarchies, name: str) -> Group | None:
    """Return the group ``anyon/<name>``, whether it is there or not; None where there can be none."""
    if hierarchies.version == 1:
        places = {c: hierarchies.v1[c] / "anyon" / name for c in CONTROLLERS if c in hierarchies.v1}
        return Group(1, places)
    if hierarchies.v2 is None:
        return None
    return Group(2, dict.fromkeys(CONTROLLERS, hierarchies.v2 / "anyon" / name))


def make_group(hierarchies: Hierarchies, name: str) -> Group:
    """Make (or take again) the group ``anyon/<name>``. Raises OSError where that is not allowed."""
    group = group_named(hierarchies, name)
    if group is None:
        raise FileNotFoundError("no control groups are mounted")
    for place in group.directories.values():
        place.mkdir(parents=True, exist_ok=True)
    if hierarchies.version == 1 or hierarchies.v2 is None:
        return group
    parent = hierarchies.v2 / "anyon"
    offered = set((hierarchies.v2 / "cgroup.controllers").read_text().split())
    wanted = [c for c in ("memory", "pids", "cpu") if c in offered]
    for upper in (hierarchies.v2, parent):
        for controller in wanted:
            # Refused where processes sit in the group itself; the limit is then reported missing.
            with contextlib.suppress(OSError):
                (upper / "cgroup.subtree_control").write_text(f"+{controller}")
    return group


class ControlGroups:
    """What an engine has of control groups: the machine's mounts, or those it was given."""

    def __init__(self, hierarchies: Hierarchies | None = None) -> None:
        self._hierarchies = hierarchies
        self._not_limited: Sequence[str] = ()

    def make(self, name: str, limits: Limits) -> Group | None:
        """Return a thawed group with the limits set, or None where none can be made.

        Raises OSError or EngineFailedError for one that is made and refuses.
        """
        try:
            group = make_group(self._mounted(), name)
        except OSError:  # described below: an ordinary user may make none
            return None
        group.thaw()
        self._not_limited = group.limit(limits)
        return group

    def forget(self, name: str) -> None:
        """Remove a group that may have been made and never recorded; absent is success."""
        group = group_named(self._mounted(), name)
        if group is not None:
            group.remove()

    def describe(self) -> str:
        """Say which version is used, what it cannot limit, or why there is none."""
        try:
            group = make_group(self._mounted(), f"probe-{os.getpid()}")
        except OSError as error:
            return f"none, so no limits, and freezing by signals: {error}"
        group.remove()
        missing = f"; without limits of {', '.join(self._not_limited)}" if self._not_limited else ""
        return f"version {group.version}{missing}"

    def _mounted(self) -> Hierarchies:
        if self._hierarchies is None:
            self._hierarchies = parse_mounts(Path("/proc/self/mountinfo").read_text())
        return self._hierarchies
