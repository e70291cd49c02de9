"""A container's cgroup on this machine: its freezer, and how often memory ran out in it.

Writing the freezer takes 0.1 ms where the engine's pause takes tens; so it is done directly
wherever the engine is local and its cgroups can be written, under version 1 and 2.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from anyon.domain.ids import ProjectId
from anyon.engines.cgroups import member_pids

PROC = Path("/proc")
_POLL = 0.001
_TRIES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """A container's cgroups: the one with the freezer and the one that counts memory."""

    freezer: Path
    memory: Path | None
    version: int

    def is_frozen(self) -> bool:
        """Say whether the container gets no CPU now. Raises OSError when it is gone."""
        if self.version == 1:
            return (self.freezer / "freezer.state").read_text().strip() != "THAWED"
        return "frozen 1" in (self.freezer / "cgroup.events").read_text().splitlines()

    async def freeze(self) -> bool:
        """Freeze it and return whether it is frozen. Raises OSError when that is not allowed."""
        for tried in range(_TRIES):
            # Version 1 may stay in FREEZING while processes are made: it must be told again.
            if tried % 50 == 0:
                self._write(frozen=True)
            if self._settled(frozen=True):
                return True
            await asyncio.sleep(_POLL)
        self._write(frozen=False)
        return False

    async def thaw(self) -> bool:
        """Thaw it and return whether it runs. Raises OSError when that is not allowed."""
        self._write(frozen=False)
        for _ in range(_TRIES):
            if self._settled(frozen=False):
                return True
            await asyncio.sleep(_POLL)
        return False

    async def thaw_if_frozen(self) -> bool:
        """Thaw it if it is frozen, as was left; False says that something else happened to it."""
        return self.is_frozen() and await self.thaw()

    def pids(self) -> Sequence[int] | None:
        """Return the pids of all that is in it; None if that cannot be told from here."""
        try:
            return member_pids(self.freezer)
        except OSError:
            return None

    def oom_kills(self) -> int:
        """Return how many processes were killed for want of memory since the container's start."""
        if self.memory is None:
            return 0
        file = self.memory / ("memory.oom_control" if self.version == 1 else "memory.events")
        return counter(file.read_text(), "oom_kill")

    def _write(self, *, frozen: bool) -> None:
        if self.version == 1:
            (self.freezer / "freezer.state").write_text("FROZEN" if frozen else "THAWED")
        else:
            (self.freezer / "cgroup.freeze").write_text("1" if frozen else "0")

    def _settled(self, *, frozen: bool) -> bool:
        if self.version == 1:
            state = (self.freezer / "freezer.state").read_text().strip()
            return state == ("FROZEN" if frozen else "THAWED")
        return self.is_frozen() is frozen


async def tried(act: Callable[[], Awaitable[bool]]) -> bool:
    """Return whether *act* did it; a cgroup that is gone or may not be written did not."""
    try:
        return await act()
    except OSError:
        return False


def counter(text: str, name: str) -> int:
    """Return the number after *name* in lines of names and numbers; 0 where it is not."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def find(pid: int, container_id: str, *, proc: Path = PROC) -> Cgroup | None:
    """Return the cgroup of the container whose first process is *pid*, or None if it is not here.

    The container's id must stand in the path: a pid that was used again, or an engine in another
    machine, can never make us freeze somebody else.
    """
    try:
        memberships = (proc / str(pid) / "cgroup").read_text()
        mounts = (proc / "self" / "mountinfo").read_text()
    except OSError:
        return None
    paths = cgroup_paths(memberships, container_id)
    freezer = _located(paths, mounts, "freezer")
    if freezer is not None:
        return Cgroup(freezer=freezer, memory=_located(paths, mounts, "memory"), version=1)
    unified = _located(paths, mounts, "")
    if unified is None or not (unified / "cgroup.freeze").exists():
        return None
    return Cgroup(freezer=unified, memory=unified, version=2)


class Cgroups:
    """Remembers each project's cgroup: to find one, all mounts of the machine are read.

    A remembered one is of the same container, whose id is in its path; when it is gone, what is
    read of it says so.
    """

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._known: dict[ProjectId, tuple[int, str, Cgroup]] = {}

    def of(self, project: ProjectId, pid: int, container_id: str) -> Cgroup | None:
        """Do as ``find``, once for each start of a container."""
        known = self._known.get(project)
        if known is not None and known[:2] == (pid, container_id):
            return known[2]
        cgroup = find(pid, container_id, proc=self._proc)
        if cgroup is not None:
            self._known[project] = (pid, container_id, cgroup)
        return cgroup

    def forget(self, project: ProjectId) -> None:
        """Its container is removed."""
        self._known.pop(project, None)


def cgroup_paths(memberships: str, container_id: str) -> dict[str, str]:
    """Return a container's path by controller (empty: version 2) from ``/proc/<pid>/cgroup``.

    The path ends at the part that names the container; what lies below is the container's own.
    """
    paths: dict[str, str] = {}
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        match = re.match(rf"(/.*?{re.escape(container_id)}[^/]*)", path)
        if match is not None:
            for controller in controllers.split(","):
                paths[controller] = match.group(1)
    return paths


def _located(paths: dict[str, str], mounts: str, controller: str) -> Path | None:
    path = paths.get(controller)
    mount = mount_point(mounts, controller)
    if path is None or mount is None:
        return None
    found = mount / path.lstrip("/")
    return found if found.is_dir() else None


def mount_point(mountinfo: str, controller: str) -> Path | None:
    """Return where *controller*'s hierarchy is mounted (empty: version 2) by ``mountinfo``.

    Only a mount of the whole hierarchy counts: below any other, paths mean something else.
    """
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        fields = left.split(" ")
        if fields[3] != "/":
            continue
        if controller == "" and kind == "cgroup2":
            return Path(fields[4])
        if controller and kind == "cgroup" and controller in options.split(","):
            return Path(fields[4])
    return None
