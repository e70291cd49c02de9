"""Checkpoints of a project in which programs run: the pause, as they feel it, and what they lose."""

import asyncio
import json
import shutil
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from anyon.clock import SystemClock
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.pauses import PausingEngine
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.files import FilesStore
from anyon.storage.saves import Saved
from anyon.testing.worlds import World, living, until
from benchmarks._trees import make_tree

PROJECT = "user/live"
WRITER = """
import json, os, sqlite3, sys, time
os.makedirs("live", exist_ok=True)
db = sqlite3.connect("live/db", isolation_level=None)
db.execute("PRAGMA journal_mode=wal")
db.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, pad TEXT)")
turn = 0
while not os.path.exists("live/stop"):
    turn += 1
    for number in range(5):
        with open(f"src/written-{(turn * 5 + number) % 200}.ts", "w") as file:
            file.write("x" * 3000 + str(turn))
    db.execute("INSERT INTO t (pad) VALUES (?)", ("y" * 500,))
    time.sleep(0.02)
"""
TICKER = """
import os, time
out = open("../gaps", "w", buffering=1)
before = time.monotonic()
while not os.path.exists("live/stop"):
    time.sleep(0.001)
    now = time.monotonic()
    if now - before > 0.003:
        out.write(f"{before} {now}\\n")
    before = now
"""
JOB = """
import json, os, shutil, subprocess, sys, time
seconds, place, command = float(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
end = time.monotonic() + seconds
done = 0
while time.monotonic() < end:
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    done += 1
    last = time.monotonic()
print(done, last - (end - seconds), flush=True)
"""


@dataclass
class Live:
    """A project on the embedded engine with a tree of many files."""

    world: World
    engine: PausingEngine
    checkpoints: Checkpoints
    project: Project
    own: list[Path] = field(default_factory=list)

    @property
    def tree(self) -> Path:
        """Its workspace, as the server sees it."""
        return Path(self.project.path)

    async def save(self) -> Saved:
        """Take a checkpoint as the server does."""
        freeze = partial(self.engine.pause, self.project.id)
        return await self.checkpoints.save(PROJECT, {"workspace": self.tree}, freeze=freeze)

    async def run(self, program: str, *words: str) -> str:
        """Run Python inside and return what it prints."""
        command = [_python(), "-c", program, *words]
        process = await self.world.services.processes.exec(LOCAL_ACTOR, self.project.id, command)
        return (await self.world.printed(process)).decode()


def _python() -> str:
    found = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin")
    if found is None:
        raise SystemExit(
            "this benchmark runs the system's own python3 inside a project: install it"
        )
    return found


@asynccontextmanager
async def project_of(base: Path, files: int) -> AsyncIterator[Live]:
    """Give a project of about *files* files that was saved once."""
    home = base / "home"
    engine = PausingEngine(BubblewrapEngine(home / "engine", hidden=[home]))
    checkpoints = Checkpoints(FilesStore(base / "live"), cache=base / "c", clock=SystemClock())
    async with living(home, engine=engine) as world:
        live = Live(world, engine, checkpoints, await world.project("bench"))
        live.own = make_tree(live.tree, files)
        await live.save()
        try:
            yield live
        finally:
            await world.services.projects.delete(LOCAL_ACTOR, live.project.id)
    await checkpoints.close()


@dataclass
class Pauses:
    """What many saves of a busy project did to it."""

    seconds: list[float] = field(default_factory=list)
    """As the server counts: from before the freeze is asked for until after the thaw."""
    felt: list[float] = field(default_factory=list)
    """The longest time without a tick of a program inside, in each save."""
    quiet: list[float] = field(default_factory=list)
    """The same in as long a time without a save: what the machine alone does to it."""
    looks: set[str] = field(default_factory=set)


async def pauses(live: Live, rounds: int) -> Pauses:
    """Save *rounds* times while a writer and a ticker run inside."""
    found = Pauses()
    gaps = live.tree / "gaps"
    ticker = TICKER.replace("../gaps", "gaps")
    writing = asyncio.create_task(live.run(WRITER))
    ticking = asyncio.create_task(live.run(ticker))

    async def has_begun() -> bool:
        return gaps.exists() and (live.tree / "live/db").exists()

    await until(has_begun)
    windows = []
    for _ in range(rounds):
        began = time.monotonic()
        saved = await live.save()
        ended = time.monotonic()
        await asyncio.sleep(ended - began)
        windows.append((began, ended, time.monotonic()))
        found.seconds.append(saved.pause_seconds)
        found.looks.add(saved.look)
    (live.tree / "live/stop").touch()
    await asyncio.gather(writing, ticking)
    seen = [tuple(map(float, line.split())) for line in gaps.read_text().splitlines()]
    for began, ended, later in windows:
        found.felt.append(_longest(seen, began, ended))
        found.quiet.append(_longest(seen, ended, later))
    shutil.rmtree(live.tree / "live")
    return found


def _longest(gaps: Sequence[tuple[float, ...]], began: float, ended: float) -> float:
    return max((b - a for a, b in gaps if a < ended and b > began), default=0.0)


@dataclass(frozen=True, slots=True)
class Job:
    """What is done again and again in a project: *place* is removed and made, then *command* run."""

    words: str
    place: str
    command: Sequence[str]
    target: float | None = None


UNPACKING = Job("unpacked", "job", ("tar", "xf", "modules.tar", "-C", "job"))
INSTALLING = Job(
    "installed by npm",
    "app/node_modules",
    ("npm", "install", "--offline", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", "app"),
    target=1.05,
)  # fmt: skip


def make_jobs(base: Path, tree: Path, files: int) -> None:
    """Put what the jobs work from into a project: one archive, and one for each package."""
    make_tree(base / "job", files)
    subprocess.run(["tar", "cf", tree / "modules.tar", "-C", base / "job", "."], check=True)
    (tree / "packages").mkdir()
    (tree / "app").mkdir()
    # Each package has a first file, and its own folder.
    found = sorted(file.parent for file in (base / "job/node_modules").rglob("file0.js"))
    wanted = {}
    for number, folder in enumerate(found):
        name = f"part-{number}"
        (folder / "package.json").write_text(json.dumps({"name": name, "version": "1.0.0"}))
        with tarfile.open(tree / f"packages/{name}.tgz", "w:gz", compresslevel=1) as archive:
            archive.add(folder, "package", filter=_without_others)
        wanted[name] = f"file:../packages/{name}.tgz"
    (tree / "app/package.json").write_text(json.dumps({"name": "app", "dependencies": wanted}))


def _without_others(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "/node_modules" in member.name else member


async def work(live: Live, job: Job, seconds: float, every: float | None) -> float:
    """Return how often a job is done in a second, with a save *every* so many seconds."""

    async def saving() -> None:
        while every is not None:
            await asyncio.sleep(every / 2)
            await live.save()
            await asyncio.sleep(every / 2)

    saves = asyncio.create_task(saving())
    told = await live.run(JOB, str(seconds), job.place, json.dumps(job.command))
    saves.cancel()
    await asyncio.gather(saves, return_exceptions=True)
    done, took = told.split()
    return int(done) / float(took)


def facts(found: Pauses) -> str:
    """Return the pauses for a log."""
    return json.dumps({"looks": sorted(found.looks), "pauses": sorted(found.seconds)})
