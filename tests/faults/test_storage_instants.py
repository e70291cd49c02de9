"""A checkpoint of a running project is of one instant: databases and numbered files inside agree."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from anyon.clock import SystemClock
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.pauses import PausingEngine
from anyon.services.archives import place
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.files import FilesStore
from anyon.testing.worlds import World, living, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

FILES = 200
# Every commit changes each of many rows and its index; every turn renames a new file over each.
WRITER = f"""
import os, sqlite3
os.makedirs("data/numbered")
db = sqlite3.connect("data/db", isolation_level=None)
db.execute("PRAGMA journal_mode=wal"); db.execute("PRAGMA synchronous=off")
db.execute("PRAGMA wal_autocheckpoint=20")
db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, turn INTEGER, pad TEXT)")
db.execute("CREATE INDEX i ON t (turn, id)")
db.execute("BEGIN")
db.executemany("INSERT INTO t VALUES (?, 0, ?)", [(n, "x" * 100) for n in range(2000)])
db.execute("COMMIT")
turn = 0
while True:
    turn += 1
    db.execute("UPDATE t SET turn = ?", (turn,))
    for n in range({FILES}):
        with open("data/new", "w") as file:
            file.write(str(turn))
        os.rename("data/new", f"data/numbered/{{n:03}}")
"""


@dataclass
class Busy:
    """A project in which something writes without pause."""

    world: World
    checkpoints: Checkpoints
    project: Project

    @property
    def data(self) -> Path:
        """Where it writes."""
        return Path(self.project.path) / "data"


@pytest.fixture
async def busy(tmp_path: Path) -> AsyncIterator[Busy]:
    """A project on the embedded engine, in which the writer is at work."""
    python = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin")
    if python is None:
        reason = "no python3 of the system's own to write with"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    home = tmp_path / "home"
    engine = PausingEngine(BubblewrapEngine(home / "engine", hidden=[home]))
    checkpoints = Checkpoints(
        FilesStore(tmp_path / "store"), cache=tmp_path / "cache", clock=SystemClock(), server="one"
    )
    async with living(home, engine=engine, checkpoints=checkpoints, pause=engine.pause) as world:
        project = await world.project("busy")
        process = await world.services.processes.exec(
            LOCAL_ACTOR, project.id, [python, "-c", WRITER]
        )
        found = Busy(world, checkpoints, project)

        async def has_turned() -> bool:
            last = found.data / "numbered" / f"{FILES - 1:03}"
            return last.exists() and int(last.read_text()) > 1

        try:
            await until(has_turned)
            yield found
        finally:
            await world.services.processes.kill(LOCAL_ACTOR, process.id)
            await world.services.projects.delete(LOCAL_ACTOR, project.id)
    await checkpoints.close()


def turns(data: Path) -> list[int]:
    """Return the number in each file, in the order in which they are written."""
    return [int((data / "numbered" / f"{n:03}").read_text()) for n in range(FILES)]


def is_of_one_instant(data: Path) -> bool:
    """Say whether the files can be so at one instant: none is ahead of one that is written before it."""
    found = turns(data)
    return sorted(found, reverse=True) == found and found[0] - found[-1] <= 1


def is_sound(data: Path) -> bool:
    """Say whether the database is whole, and all of it of one commit."""
    try:
        with sqlite3.connect(data / "db") as database:
            checked = database.execute("PRAGMA integrity_check").fetchall()
            rows = database.execute("SELECT count(*), count(DISTINCT turn) FROM t").fetchone()
        database.close()
    except sqlite3.DatabaseError:
        return False
    return checked == [("ok",)] and rows == (2000, 1)


async def test_each_of_ten_checkpoints_is_of_one_instant(busy: Busy, tmp_path: Path) -> None:
    """Taken while everything is written, each is restored; the database and the files are sound in all."""
    use_cases = busy.world.services.checkpoints
    assert use_cases is not None
    taken = [await use_cases.take(LOCAL_ACTOR, busy.project.id) for _ in range(10)]
    assert len({one.id for one in taken}) == 10
    before = turns(busy.data)[0]
    for number, one in enumerate(taken):
        data = tmp_path / f"restored-{number}"
        await busy.checkpoints.restore(place(busy.project), one.id, {"workspace/data": data})
        assert is_of_one_instant(data), turns(data)
        assert is_sound(data)

    async def goes_on() -> bool:
        return turns(busy.data)[0] > before

    await until(goes_on)


async def test_without_the_pause_files_are_of_several_instants(busy: Busy, tmp_path: Path) -> None:
    """The control: the same save without a pause is seen to mix, so the test above would notice."""
    for number in range(40):
        saved = await busy.checkpoints.save(
            f"control/{busy.project.id}", {"workspace": Path(busy.project.path)}
        )
        data = tmp_path / f"mixed-{number}"
        project = f"control/{busy.project.id}"
        await busy.checkpoints.restore(project, saved.checkpoint.id, {"workspace/data": data})
        if not is_of_one_instant(data):
            return
    pytest.fail("forty saves without a pause were all of one instant")


async def test_a_naive_copy_breaks_the_database(busy: Busy, tmp_path: Path) -> None:
    """The control: a database that is copied while it is written is found unsound."""
    for number in range(60):
        data = tmp_path / f"copied-{number}"
        data.mkdir()
        with (busy.data / "db").open("rb") as source, (data / "db").open("wb") as target:
            target.write(source.read(100_000))
            await asyncio.sleep(0.1)
            shutil.copyfileobj(source, target)
        if not is_sound(data):
            return
    pytest.fail("sixty naive copies were all sound")
