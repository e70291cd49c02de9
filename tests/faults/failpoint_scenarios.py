"""For each failpoint the story in which a server reaches it; see ``sweep_failpoints``."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tests.faults.agreement import Known
from tests.faults.mortal_servers import DiedError, MortalServer, asked, end_of, fork, wait_for

from anyon import failpoints
from anyon.clock import SystemClock
from anyon.domain.errors import ConflictError
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.files import FilesStore
from anyon.storage.owners import Claim, TakeOver
from anyon.storage.retention import Retention
from anyon.wiring import engines
from anyon.wiring.recover import Wish, recover

After = Callable[[], None]
BOTH = frozenset({"bubblewrap", "docker"})
NOTHING = timedelta(0)


class Stage:
    """One home with its server, and what its clients were told."""

    def __init__(self, home: Path, engine: str) -> None:
        self.home = home
        self.engine = engine
        self.server = MortalServer(home, engine)
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

    def leave_nothing(self) -> None:
        """End the server and remove every container of this home."""

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
    settings: dict[str, str] = field(default_factory=dict)


def create(stage: Stage, point: str) -> None:
    """Make a project."""
    stage.server.arm(point)
    stage.create()


def import_one(stage: Stage, point: str) -> None:
    """Make a project of a local repository."""
    source = stage.home.with_name("source")
    if not source.exists():
        subprocess.run(["git", "init", "-q", source], check=True)
        (source / "file").write_text("imported\n")
    stage.server.arm(point)
    stage.create(git_repo_path=str(source))


def create_undo(stage: Stage, point: str) -> None:
    """Die in a creation, and again while the next life takes it back."""
    create(stage, "create.repository_made")
    assert stage.server.end() == -signal.SIGKILL
    stage.server.start(point)


def start(stage: Stage, point: str) -> None:
    """Work on a stopped project."""
    wake(stage, stage.asleep("stopped", stop=1), point)


def thaw(stage: Stage, point: str) -> None:
    """Work on a frozen project."""
    wake(stage, stage.asleep("frozen", freeze=1), point)


def bring_back(stage: Stage, point: str) -> None:
    """Work on a project whose files are in the store only."""
    wake(stage, stage.archived(), point)


def wake(stage: Stage, one: Known, point: str) -> None:
    """Ask for work in a project that sleeps."""
    stage.server.arm(point)
    stage.attempt("POST", f"/api/projects/{one.id}/exec", {"argv": ["true"]})


def freeze(stage: Stage, point: str) -> None:
    """Let a project be idle until it is frozen."""
    one = stage.running()
    stage.server.arm(point)
    stage.times(one, freeze=1)


def stop(stage: Stage, point: str) -> None:
    """Let a project be idle until it is stopped."""
    one = stage.running()
    stage.server.arm(point)
    stage.times(one, stop=1)


def archive(stage: Stage, point: str) -> None:
    """Let a project be idle until its files are let go."""
    one = stage.running()
    stage.server.arm(point)
    stage.times(one, stop=1, archive=1)


def delete(stage: Stage, point: str) -> None:
    """Delete a project: from its tombstone on there is no way back but the undo."""
    one = stage.running()
    stage.server.arm(point)
    one.is_deleted = True
    stage.attempt("DELETE", f"/api/projects/{one.id}")


def undelete(stage: Stage, point: str) -> None:
    """Bring a deleted project back."""
    one = stage.running()
    stage.server.call("DELETE", f"/api/projects/{one.id}")
    stage.server.arm(point)
    stage.attempt("POST", f"/api/deleted-projects/{one.id}/restore")


def purge(stage: Stage, point: str) -> None:
    """Forget a deleted project, as the reaper does first of all in each life."""
    one = stage.running()
    stage.server.call("DELETE", f"/api/projects/{one.id}")
    one.is_deleted = True
    stage.server.kill()
    stage.server.start(point, ANYON_UNDO_WINDOW="0s")


def adopt(stage: Stage, point: str) -> After:
    """Die while a program runs, and again while the next life takes it up."""
    one = stage.running()
    script = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; sleep 0.05; done"
    argv = {"argv": ["sh", "-c", script]}
    made = stage.server.call("POST", f"/api/projects/{one.id}/exec", argv)
    stage.server.kill()
    stage.server.start(point)

    def after() -> None:
        lines = "".join(f"line {number}\n" for number in range(1, 41))
        assert stage.server.printed(made["id"]) == lines

    return after


def repair(stage: Stage, point: str) -> None:
    """Lose a container while no server looks, and die in the repair of what is recorded."""
    one = stage.running()
    stage.server.kill()
    if stage.engine == "docker":
        subprocess.run(["docker", "kill", f"project-{one.id}"], check=True, capture_output=True)
    else:
        os.kill(stage.pid(one), signal.SIGKILL)
    stage.server.start(point)


def save(stage: Stage, point: str) -> None:
    """Take a checkpoint of a running project."""
    one = stage.running()
    stage.server.arm(point)
    stage.attempt("POST", f"/api/projects/{one.id}/checkpoints")


def claim(stage: Stage, point: str) -> None:
    """Take the first checkpoint of a project."""
    one = stage.create()
    assert one is not None
    stage.server.arm(point)
    stage.attempt("POST", f"/api/projects/{one.id}/checkpoints")


def go_back(stage: Stage, point: str) -> None:
    """Restore a former checkpoint; once that is recorded it is finished, else it never was."""
    one = stage.running()
    before = dict(one.files)
    saved = stage.server.call("POST", f"/api/projects/{one.id}/checkpoints")
    stage.write(one)
    stage.server.arm(point)
    stage.attempt("POST", f"/api/projects/{one.id}/checkpoints/{saved['id']}/restore")
    if point not in {"restore.halted", "restore.saved"}:
        one.files = before


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


def collect(stage: Stage, point: str) -> None:
    """Collect garbage; the next collection finishes it, and the last checkpoint is whole."""
    archive = Archive(stage.home.with_name(f"archive{stage.count()}"))

    async def fill() -> None:
        use = archive.checkpoints(0)
        for number in range(4):
            (archive.tree / "file").write_bytes(os.urandom(20_000) + b"%d" % number)
            await use.save("u/p", {"workspace": archive.tree})
        await use.close()

    async def sweep(hours: int) -> None:
        use = archive.checkpoints(hours)
        await use.collect("u/p", grace=NOTHING)
        await use.close()

    async def look() -> None:
        use = archive.checkpoints(9)
        (last,) = await use.list("u/p")
        assert not (await use.verify("u/p", last.id, read_data=True)).problems
        keys = [info.key for info in FilesStore(archive.root / "store").list("u/p/packs/")]
        packs = [key.rpartition("/")[2] for key in keys]
        assert sorted(packs) == sorted(last.packs), f"{packs} are there, {last.packs} are needed"
        await use.close()

    archive.life(fill)
    archive.life(lambda: sweep(3), point)
    archive.life(lambda: sweep(6))
    archive.life(look)


def give_up(stage: Stage, point: str) -> None:
    """Give a claim up; another server can take it at once."""
    archive = Archive(stage.home.with_name(f"archive{stage.count()}"))
    hour = timedelta(hours=1)

    async def hold() -> None:
        use = archive.checkpoints(0)
        await use.release("u/p", await use.claim("u/p", length=hour))

    async def take() -> None:
        use = archive.checkpoints(0, "two")
        found: Claim = await use.claim("u/p", length=hour, take_over=TakeOver.EXPIRED)
        assert found.server == "two"
        try:
            await archive.checkpoints(0).claim("u/p", length=hour)
        except ConflictError:
            return
        raise AssertionError("two servers have it")

    archive.life(hold, point)
    archive.life(take)


def take_over(stage: Stage, point: str) -> None:
    """Take up a project from a copy of the store, elsewhere; a second try finishes it."""
    one = stage.running()
    stage.server.call("POST", f"/api/projects/{one.id}/checkpoints")
    other = Stage(stage.home.with_name(f"{stage.home.name}-{stage.count()}"), stage.engine)
    shutil.copytree(stage.home / "store", other.home / "store")
    # As on a lost machine: one engine cannot have the containers of both homes.
    stage.server.call("DELETE", f"/api/projects/{one.id}")
    one.is_deleted = True

    async def try_it() -> None:
        settings = other.server.settings()
        await recover(settings, Wish(state="checkpoints", is_forced=True))

    archive = Archive(other.home / "unused")
    archive.life(try_it, point)
    archive.life(try_it)
    shutil.rmtree(archive.root)
    other.server.start()
    other.server.answer()
    try:
        names = sorted(one.files)
        found = other.server.run(one.id, f"cat {' '.join(names)}")
        assert found == "".join(one.files[name] for name in names)
    finally:
        other.leave_nothing()


def _named(scenario: Scenario, *points: str) -> dict[str, Scenario]:
    return dict.fromkeys(points, scenario)


_SLEEP = _named(
    Scenario(stop),
    "stop.recorded",
    "stop.thawed",
    "stop.processes_ended",
    "stop.container_stopped",
    "stop.exits_given",
    "stop.unsaved_recorded",
    "stop.checkpoint_confirmed",
    "stop.confirmed",
) | _named(
    Scenario(stop, frozenset({"bubblewrap"})),
    "bubblewrap.ended",
    "bubblewrap.group_removed",
    "bubblewrap.end_recorded",
)
_WAKE = _named(
    Scenario(start),
    "start.container_started",
    "start.processes_adopted",
    "wake.recorded",
) | _named(Scenario(start, frozenset({"bubblewrap"})), "bubblewrap.first_recorded")
_PAIRS = [one for pair in zip_longest(_SLEEP.items(), _WAKE.items()) for one in pair if one]

SCENARIOS: dict[str, Scenario] = {
    # A stop leaves what a start needs.
    **dict(_PAIRS),
    **_named(Scenario(freeze), "freeze.frozen", "freeze.recorded"),
    **_named(Scenario(thaw), "wake.thawed"),
    **_named(
        Scenario(create),
        "create.recorded",
        "create.directories_made",
        "create.container_up",
        "create.repository_made",
        "create.confirmed",
    ),
    **_named(
        Scenario(create, frozenset({"bubblewrap"})),
        "bubblewrap.recorded",
        "bubblewrap.group_made",
        "bubblewrap.launched",
    ),
    **_named(
        Scenario(create, frozenset({"docker"})), "docker.network_ready", "docker.container_created"
    ),
    **_named(Scenario(import_one), "create.files_copied"),
    **_named(
        Scenario(create_undo),
        "create_undo.container_removed",
        "create_undo.files_discarded",
        "create_undo.record_removed",
    ),
    **_named(
        Scenario(save),
        "checkpoint.precopied",
        "checkpoint.still",
        "checkpoint.pack_put",
        "checkpoint.packs_durable",
        "checkpoint.record_written",
        "checkpoint.head_moved",
        "checkpoint.known",
    ),
    **_named(Scenario(claim), "claim.owner_written", "claim.head_moved"),
    **_named(
        Scenario(go_back),
        "restore.halted",
        "restore.saved",
        "restore.recorded",
        "restore.files_back",
        "restore.confirmed",
        "homes.tree_cleared",
        "homes.tree_replaced",
    ),
    **_named(
        Scenario(bring_back),
        "wake.restoring_recorded",
        "wake.files_back",
        "start.directories_made",
        "start.container_made",
        "restore.planned",
        "restore.filled",
        "restore.synced",
        "restore.settled",
        "restore.staged",
    ),
    **_named(
        Scenario(archive),
        "archive.state_confirmed",
        "archive.recorded",
        "archive.container_removed",
        "archive.files_released",
        "archive.confirmed",
        "homes.tree_released",
    ),
    **_named(
        Scenario(delete),
        "delete.tombstoned",
        "delete.processes_abandoned",
        "delete.container_stopped",
        "delete.state_confirmed",
        "delete.container_removed",
        "delete.files_discarded",
        "delete.confirmed",
        "homes.trash_emptied",
    ),
    **_named(
        Scenario(delete, frozenset({"bubblewrap"})),
        "bubblewrap.system_removed",
        "bubblewrap.forgotten",
    ),
    **_named(Scenario(delete, frozenset({"docker"})), "docker.container_removed"),
    **_named(Scenario(undelete), "undelete.revived"),
    **_named(
        Scenario(purge, settings={"ANYON_UNDO_WINDOW": "0s"}),
        "purge.checkpoints_removed",
        "purge.record_removed",
        "forget.head_deleted",
        "forget.object_deleted",
    ),
    **_named(Scenario(adopt), "adopt.processes_read", "adopt.project_taken_up"),
    **_named(Scenario(repair), "repair.exits_given", "repair.recorded"),
    **_named(
        Scenario(collect, frozenset({"bubblewrap"}), is_apart=True),
        "collection.leased",
        "collection.checkpoint_deleted",
        "collection.pack_deleted",
        "collection.swept",
    ),
    **_named(Scenario(give_up, frozenset({"bubblewrap"}), is_apart=True), "claim.released"),
    **_named(Scenario(take_over, is_apart=True), "takeover.claimed", "takeover.recorded"),
}
"""Each point's story; a test compares them with all points that there are."""
