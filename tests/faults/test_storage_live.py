"""Checkpoints of a project at full work: each comes back as a sound repository and a sound database.

``ANYON_LIVE_CHECKPOINTS`` says how many are taken on each engine (``./test checkpoints``: 200).
"""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from anyon.clock import SystemClock
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Process, Project
from anyon.engines import docker_sockets
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.docker import DockerEngine
from anyon.engines.engine import Engine
from anyon.engines.pauses import PausingEngine
from anyon.services.archives import place
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.files import FilesStore
from anyon.storage.folders import remove_tree
from anyon.testing.worlds import World, living, until

COUNT = int(os.environ.get("ANYON_LIVE_CHECKPOINTS", "6"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(280 + 60 * COUNT)]
IMAGE = "anyon/workspace:full"

GIT = """
set -eu
git init -q -b main data/repository && cd data/repository
git config user.name t && git config user.email t@t && git config gc.auto 0
for n in $(seq 60); do echo "$n" >"file-$n"; done
git add . && git commit -qm first
turn=0
while :; do
    turn=$((turn + 1))
    echo "$turn $(seq 200)" >"file-$((turn % 60 + 1))"
    git commit -qam "$turn"
    [ $((turn % 3)) != 0 ] || git branch -f "topic-$((turn % 5))"
    [ $((turn % 4)) != 0 ] || { git repack -adq; git pack-refs --all; }
    [ $((turn % 7)) != 0 ] || git gc -q --prune=now
done
"""
SQL = """
import os, sqlite3
os.makedirs("data", exist_ok=True)
db = sqlite3.connect("data/db", isolation_level=None)
db.execute("PRAGMA journal_mode=wal"); db.execute("PRAGMA wal_autocheckpoint=20")
db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, turn INTEGER, pad TEXT)")
db.execute("CREATE INDEX i ON t (turn, id)")
db.execute("BEGIN")
db.executemany("INSERT INTO t VALUES (?, 0, ?)", [(n, "x" * 100) for n in range(2000)])
db.execute("COMMIT")
turn = 0
while True:
    turn += 1
    db.execute("UPDATE t SET turn = ?", (turn,))
"""


@dataclass
class Live:
    """A project in which git and a database are written to without pause."""

    world: World
    checkpoints: Checkpoints
    project: Project

    @property
    def data(self) -> Path:
        """Where that is, on this machine."""
        return Path(self.project.path) / "data"

    async def take(self) -> tuple[str, float]:
        """Take a checkpoint; return its id and how long it took."""
        use_cases = self.world.services.checkpoints
        assert use_cases is not None
        began = time.monotonic()
        taken = await use_cases.take(LOCAL_ACTOR, self.project.id)
        return taken.id, time.monotonic() - began


def missing(reason: str) -> NoReturn:
    """Skip at home; fail where everything must be there."""
    pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


def engine_named(name: str, home: Path) -> Engine:
    """Return a real engine, or skip."""
    if name == "bubblewrap":
        if shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin") is None:
            missing("no python3 of the system's own to write with")
        return BubblewrapEngine(home / "engine", hidden=[home])
    socket = docker_sockets.find()
    if socket is None:
        missing("no Docker engine answers: run scripts/services/docker.sh start")
    return DockerEngine(socket, instance=home.name, image=IMAGE)


@pytest.fixture(params=["bubblewrap", "docker"])
async def live(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Live]:
    """A project on each engine, in which the writers are at work."""
    home = tmp_path / "home"
    engine = PausingEngine(engine_named(request.param, home))
    checkpoints = Checkpoints(
        FilesStore(tmp_path / "store"), cache=tmp_path / "cache", clock=SystemClock(), server="one"
    )
    owner = (1000, 1000) if request.param == "docker" and os.geteuid() == 0 else None
    parts = {"checkpoints": checkpoints, "pause": engine.pause, "files_owner": owner}
    if request.param == "docker":
        parts |= {"saved_trees": ("workspace", "home")}
    async with living(home, engine=engine, **parts) as world:
        project = await world.project("live")
        execute = world.services.processes.exec
        found, writers = Live(world, checkpoints, project), list[Process]()
        try:
            for argv in (["sh", "-c", GIT], ["python3", "-c", SQL]):
                writers.append(await execute(LOCAL_ACTOR, project.id, argv))
            await until(lambda: moved(found.data, 3))
            yield found
        finally:
            for writer in writers:
                await world.services.processes.kill(LOCAL_ACTOR, writer.id)
            await world.services.projects.delete(LOCAL_ACTOR, project.id)
    await checkpoints.close()


async def moved(data: Path, turns: int) -> bool:
    """Say whether both writers have written for some turns."""
    repository = data / "repository"
    if not (repository / ".git").is_dir() or not (data / "db").exists():
        return False
    count = await asyncio.to_thread(git, repository, "rev-list", "--count", "main")
    return count.strip().isdigit() and int(count) > turns and turn_of(data) > turns


def git(repository: Path, *arguments: str) -> str:
    """Return all that git says."""
    command = ["git", "-c", "safe.directory=*", "-C", str(repository), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.stdout + (done.stderr if done.returncode else "")


def turn_of(data: Path) -> int:
    """Return the database's turn, -1 if it cannot be read."""
    try:
        with sqlite3.connect(f"file:{data}/db?mode=ro", uri=True, timeout=10) as database:
            return int(database.execute("SELECT max(turn) FROM t").fetchone()[0] or 0)
    except sqlite3.Error:
        return -1


def damages(data: Path) -> dict[str, str]:
    """Return what is wrong, as git and SQLite see it, by which of them; empty if all is sound."""
    found = {}
    command = ["git", "-c", "safe.directory=*", "-C", str(data / "repository")]
    fsck = subprocess.run(
        [*command, "fsck", "--full", "--strict", "--no-dangling", "--no-progress"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if fsck.returncode or fsck.stderr or fsck.stdout:
        found["git"] = fsck.stdout + fsck.stderr
    if not git(data / "repository", "rev-parse", "--verify", "HEAD").strip():
        found["git"] = "no HEAD"
    try:
        with sqlite3.connect(data / "db") as database:
            checked = database.execute("PRAGMA integrity_check").fetchall()
            rows = database.execute("SELECT count(*), count(DISTINCT turn) FROM t").fetchone()
        database.close()
        if checked != [("ok",)] or rows != (2000, 1):
            found["sqlite"] = f"{checked[:3]} {rows}"
    except sqlite3.DatabaseError as error:
        found["sqlite"] = str(error)
    return found


async def test_every_checkpoint_is_sound(live: Live, tmp_path: Path) -> None:
    """Each is restored: `git fsck` and `PRAGMA integrity_check` find nothing, and time has passed."""
    broken, heads, seconds = [], set(), []
    for number in range(COUNT):
        taken, took = await live.take()
        back = tmp_path / f"back-{number}"
        await live.checkpoints.restore(place(live.project), taken, {"workspace/data": back})
        found = await asyncio.to_thread(damages, back)
        if found:
            broken.append((number, found))
        heads.add((git(back / "repository", "rev-parse", "HEAD"), turn_of(back)))
        seconds.append(took)
        remove_tree(bytes(back))
    median, longest = sorted(seconds)[COUNT // 2], max(seconds)
    print(f"{live.world.engine.name}: {COUNT} checkpoints, {len(broken)} broken, "
          f"{len(heads)} different states, {median:.2f} s each, the longest {longest:.2f} s")  # fmt: skip
    assert broken == []
    assert len(heads) == COUNT  # the writers went on between any two


async def test_a_naive_copy_is_not(live: Live, tmp_path: Path) -> None:
    """The control: files copied one after the other, as a big tree's would be, are found broken."""
    seen: set[str] = set()
    for number in range(40):
        back = tmp_path / f"copied-{number}"
        await asyncio.to_thread(copied, live.data, back)
        seen |= (await asyncio.to_thread(damages, back)).keys()
        remove_tree(bytes(back))
        if seen == {"git", "sqlite"}:
            return
    pytest.fail(f"forty naive copies broke only {seen or 'nothing'}")


def copied(source: Path, target: Path) -> None:
    """Copy a tree file by file in the order of names, with a moment between them."""
    for directory, folders, files in os.walk(source):
        folders.sort()
        below = target / Path(directory).relative_to(source)
        below.mkdir(parents=True, exist_ok=True)
        for name in sorted(files):
            try:
                with (
                    (Path(directory) / name).open("rb") as read,
                    (below / name).open("wb") as write,
                ):
                    while part := read.read(1 << 17):
                        write.write(part)
                        time.sleep(0.004)
            except FileNotFoundError:
                continue  # as a copy of a tree that changes must
