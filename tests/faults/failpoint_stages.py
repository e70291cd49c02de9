"""What the stories of the failpoints are played on: a home with its server, a store without one."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.faults.agreement import Known, disagreements
from tests.faults.mortal_servers import DiedError, MortalServer, asked, end_of, fork, wait_for

from anyon import failpoints
from anyon.clock import SystemClock
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.files import FilesStore
from anyon.storage.retention import Retention
from anyon.wiring import engines

After = Callable[[], None]
BOTH = frozenset({"bubblewrap", "docker"})
NOTHING = timedelta(0)
PROMISE = 10.0
"""Seconds from the moment at which the new server answers, after which all must agree."""
IS_SHARED = bool(os.environ.get("ANYON_SHARED_MACHINE"))
"""Whether others compute on this machine too: then seconds say little, and six times as many are allowed."""
WITHIN = PROMISE * 6 if IS_SHARED else PROMISE


class Stage:
    """One home with its server, and what its clients were told."""

    def __init__(
        self, home: Path, engine: str, *, patch: Callable[[], None] | None = None, **more: str
    ) -> None:
        self.home = home
        self.engine = engine
        self.server = MortalServer(home, engine, patch=patch, **more)
        self.others: dict[str, Stage] = {}
        self.known: list[Known] = []
        self.standing: Known | None = None
        self._count = 0

    def count(self) -> int:
        """Return another number each time."""
        self._count += 1
        return self._count

    def attempt(self, method: str, path: str, body: object | None = None) -> Any:
        """Call, and return None where the server died of it."""
        try:
            return self.server.call(method, path, body)
        except DiedError:
            return None

    def create(self, **more: str) -> Known | None:
        """Make a project; None where the server died of it."""
        made = self.attempt("POST", "/api/projects", {"name": f"p{self.count()}", **more})
        if made is None:
            return None
        self.known.append(Known(made["id"]))
        return self.known[-1]

    def running(self) -> Known:
        """Return a project that runs, has a new file and is held by nobody."""
        if self.standing is None or self.standing.is_deleted:
            self.standing = self.create()
            assert self.standing is not None
        self.times(self.standing)
        self.write(self.standing)
        return self.standing

    def write(self, one: Known) -> None:
        """Let a program write a file; with its end it is acknowledged."""
        number = self.count()
        name = f"file{number % 2}"
        self.server.run(one.id, f"echo {number} > {name}")
        one.files[name] = f"{number}\n"
        self.rest(one)

    def rest(self, one: Known) -> None:
        """Wait until nobody holds the project."""
        path = f"/api/projects/{one.id}/awake"
        wait_for(lambda: not self.server.call("GET", path)["leases"], "the leases to go")

    def times(self, one: Known, *, freeze: int = 0, stop: int = 0, archive: int = 0) -> None:
        """Set the project's idle times; 0 is never."""
        times = {"freeze_after": freeze, "stop_after": stop, "archive_after": archive}
        self.server.call("PUT", f"/api/projects/{one.id}", times)

    def phase(self, one: Known) -> str:
        """Return the recorded phase."""
        return str(self.server.call("GET", f"/api/projects/{one.id}/awake")["phase"])

    def asleep(self, phase: str, **times: int) -> Known:
        """Return a project that is in *phase* by its idle time."""
        one = self.standing
        if one is None or one.is_deleted or self.phase(one) != phase:
            one = self.running()
            self.times(one, **times)
            wait_for(lambda: self.phase(one) == phase, f"a project to be {phase}")
        self.times(one)
        return one

    def archived(self) -> Known:
        """Return a project whose files are in the store only."""
        one = self.running()
        self.server.call("DELETE", f"/api/projects/{one.id}")
        self.server.call("POST", f"/api/deleted-projects/{one.id}/restore")
        return one

    def tidy(self) -> None:
        """Take in what was made without anybody being told, and delete all but one project."""
        found = [project["id"] for project in self.server.call("GET", "/api/projects")]
        names = {one.id for one in self.known}
        self.known += [Known(project) for project in found if project not in names]
        for one in self.known:
            if one.id in found and one is not self.standing:
                self.server.call("DELETE", f"/api/projects/{one.id}")
                one.is_deleted = True

    def other(self, name: str, *, patch: Callable[[], None] | None = None, **more: str) -> "Stage":
        """Return another home with its server, begun at the first asking, ended with this one."""
        if name not in self.others:
            home = self.home.with_name(f"{self.home.name}-{name}")
            self.others[name] = Stage(home, self.engine, patch=patch, **more)
            self.others[name].server.start()
            self.others[name].server.answer()
        return self.others[name]

    def agreed(self, within: float = WITHIN) -> float:
        """Wait until nothing disagrees; return how long that took."""
        began = time.monotonic()
        while wrong := disagreements(self.server.settings(), self.known):
            if time.monotonic() - began > within:
                raise AssertionError("; ".join(wrong))
            time.sleep(0.1)
        return time.monotonic() - began

    def save(self, one: Known) -> str:
        """Take a checkpoint and return its id."""
        return str(self.server.call("POST", f"/api/projects/{one.id}/checkpoints")["id"])

    def take_up(self, one: Known) -> None:
        """Start the server over what was recovered, find the project's files in its container, and clear away."""
        self.server.start()
        self.server.answer()
        try:
            names = sorted(one.files)
            found = self.server.run(one.id, f"cat {' '.join(names)}")
            assert found == "".join(one.files[name] for name in names)
        finally:
            self.leave_nothing()

    def leave_nothing(self) -> None:
        """End the server and remove every container of this home, and of the others."""
        for other in self.others.values():
            other.leave_nothing()

        async def remove() -> None:
            engine = await engines.choose(self.server.settings())
            for info in await engine.list():
                await engine.remove(info.project)
            await engine.close()

        self.server.kill()
        asked(remove)

    def pid(self, one: Known) -> int:
        """Return the first process of a container of the embedded engine."""
        record = json.loads((self.home / "engine" / f"{one.id}.json").read_text())
        return int(record["first"]["pid"])


@dataclass(frozen=True)
class Scenario:
    """How a server comes to a point; *act* ends with its death, or is a story *apart* from it.

    What *act* returns is called when all agree again. ``settings`` are those of the next life.
    """

    act: Callable[[Stage, str], After | None]
    engines: frozenset[str] = BOTH
    is_apart: bool = False
    is_long: bool = False
    """Not tried each day in the short form, as it needs homes and servers of its own."""
    settings: dict[str, str] = field(default_factory=dict)


class LaterClock(SystemClock):
    """A clock some hours ahead."""

    def __init__(self, hours: int) -> None:
        self._ahead = timedelta(hours=hours)

    def now(self) -> datetime:
        """Return the time that it will be."""
        return super().now() + self._ahead


class Archive:
    """A store with one project of its own, used by one process after the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tree = root / "tree"
        self.tree.mkdir(parents=True)

    def checkpoints(self, hours: int, server: str = "one") -> Checkpoints:
        """Return a server's view of it, so many hours from now."""
        none = Retention(everything=NOTHING, hourly=NOTHING, daily=NOTHING, monthly=NOTHING)
        store = FilesStore(self.root / "store")
        return Checkpoints(
            store,
            cache=self.root / "cache",
            clock=LaterClock(hours),
            retention=none,
            server=server,
        )

    def life(self, work: Callable[[], Coroutine[Any, Any, object]], point: str = "") -> None:
        """Do *work* in a process of its own, which dies at *point* if one is given."""

        def live() -> None:
            failpoints.arm(point)
            asyncio.run(work())

        assert end_of(fork(live)) == (-signal.SIGKILL if point else 0), point


def named(scenario: Scenario, *points: str) -> dict[str, Scenario]:
    """Return the same scenario for each of some points."""
    return dict.fromkeys(points, scenario)
