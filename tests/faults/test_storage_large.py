"""Projects of many files and of huge ones, saved while programs run in them, in bounded memory.

``ANYON_LARGE_FILES`` says how many files (100000 in the long form) and ``ANYON_LARGE_MIB`` how
large the huge ones are (10240 in the long form; ``./test large``).
"""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from tests.docker_fixtures import IMAGE, missing

from anyon.clock import SystemClock
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.engines import docker_sockets
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.docker import DockerEngine
from anyon.engines.engine import Engine
from anyon.engines.pauses import PausingEngine, Still
from anyon.storage import captures
from anyon.storage.captures import RACY_NS
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.files import FilesStore
from anyon.storage.saves import Progress, Saved
from anyon.testing.worlds import World, living, until

FILES = int(os.environ.get("ANYON_LARGE_FILES", "3000"))
MIB = int(os.environ.get("ANYON_LARGE_MIB", "200"))
PROJECT = "user/project"
MAX_GROWTH_BYTES = 150 << 20
pytestmark = [pytest.mark.slow, pytest.mark.timeout(280 + FILES // 100 + MIB // 10)]

WRITER = """
mkdir -p written
turn=0
while :; do
    turn=$((turn + 1))
    for n in 0 1 2 3 4 5 6 7 8 9; do echo "$turn" >written/new && mv written/new "written/$n"; done
done
"""


def engine_named(name: str, home: Path) -> Engine:
    """Return a real engine, or skip."""
    if name == "bubblewrap":
        return BubblewrapEngine(home / "engine", hidden=[home])
    socket = docker_sockets.find()
    if socket is None:
        missing("no Docker engine answers: run scripts/services/docker.sh start")
    return DockerEngine(socket, instance=home.name, image=IMAGE)


@dataclass
class Large:
    """A project in which a program runs, and what saves it."""

    world: World
    engine: PausingEngine
    checkpoints: Checkpoints
    project: Project
    base: Path

    @property
    def tree(self) -> Path:
        """Its workspace, on this machine."""
        return Path(self.project.path)

    async def save(self, told: list[Progress] | None = None) -> Saved:
        """Take a checkpoint as the server does."""
        return await self.checkpoints.save(
            PROJECT,
            {"workspace": self.tree},
            freeze=partial(self.engine.pause, self.project.id),
            progress=None if told is None else told.append,
        )

    async def restored(self, name: str) -> Path:
        """Bring the last one back somewhere else."""
        target = self.base / name
        await self.checkpoints.restore(PROJECT, None, {"workspace": target})
        return target


@pytest.fixture(params=["bubblewrap", "docker"])
async def large(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Large]:
    """A project on each engine, with a writer at work."""
    home = tmp_path / "home"
    engine = PausingEngine(engine_named(request.param, home))
    checkpoints = Checkpoints(
        FilesStore(tmp_path / "store"), cache=tmp_path / "c", clock=SystemClock()
    )
    owner = (1000, 1000) if request.param == "docker" and os.geteuid() == 0 else None
    async with living(home, engine=engine, files_owner=owner) as world:
        project = await world.project("large")
        made = Large(world, engine, checkpoints, project, tmp_path)
        writer = await world.services.processes.exec(LOCAL_ACTOR, project.id, ["sh", "-c", WRITER])

        async def has_begun() -> bool:
            return (made.tree / "written/9").exists()

        try:
            await until(has_begun)
            yield made
        finally:
            await world.services.processes.kill(LOCAL_ACTOR, writer.id)
            await world.services.projects.delete(LOCAL_ACTOR, project.id)
    await checkpoints.close()


@contextmanager
def growth() -> Iterator[list[int]]:
    """Measure by how many bytes this process is larger inside the block than before it, at the most."""
    over = threading.Event()
    found = [0]
    before = resident_bytes()

    def look() -> None:
        while not over.wait(0.01):
            found[0] = max(found[0], resident_bytes() - before)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def resident_bytes() -> int:
    """Return what this process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fill(root: Path, files: int) -> None:
    """Write many small files, some directories deep."""
    for number in range(files):
        folder = root / f"node_modules/package-{number // 30}" / ("", "lib", "dist/cjs")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.js").write_bytes(b"export const number = %d;\n" % number * 40)


def written(root: Path) -> list[int]:
    """Return the turns of the writer's files, in the order in which they are written."""
    return [int((root / f"written/{number}").read_text()) for number in range(10)]


async def test_many_files_under_work(large: Large) -> None:
    """Each save is of one instant, finds what changed by the journal, and comes back whole."""
    await asyncio.to_thread(fill, large.tree, FILES)
    await asyncio.sleep(2 * RACY_NS / 1e9)  # what is as young as the look is read again at the next
    with growth() as grown:
        first = await large.save()
    assert grown[0] < MAX_GROWTH_BYTES
    assert first.checkpoint.files >= FILES
    for turn in range(3):
        edited = large.tree / f"node_modules/package-{turn}/edited.js"
        await asyncio.to_thread(edited.write_text, f"edited in turn {turn}")
        began = time.monotonic()
        saved = await large.save()
        print(
            f"{large.engine.name}, {FILES} files: save {time.monotonic() - began:.2f} s, "
            f"pause {saved.pause_seconds * 1000:.1f} ms, by {saved.look}"
        )
        assert saved.look == "journal"
        assert saved.report.read_files < 200
        back = await large.restored(f"back-{turn}")
        assert (back / edited.relative_to(large.tree)).read_text() == f"edited in turn {turn}"
        turns = written(back)
        assert sorted(turns, reverse=True) == turns
        assert turns[0] - turns[-1] <= 1
    assert sum(1 for path in back.rglob("*.js")) == FILES + 3


@pytest.mark.parametrize("is_sparse", [False, True], ids=["full", "sparse"])
async def test_a_huge_file_under_work(large: Large, is_sparse: bool) -> None:
    """It is saved in bounded memory and tells how far it is; an edit costs its block, no edit nothing."""
    huge = large.tree / "huge"
    await asyncio.to_thread(make_huge, huge, is_sparse=is_sparse)
    told: list[Progress] = []
    with growth() as grown:
        first = await large.save(told)
    assert grown[0] < MAX_GROWTH_BYTES
    assert told
    assert [one.read_bytes for one in told] == sorted(one.read_bytes for one in told)
    assert first.checkpoint.size_bytes >= MIB << 20
    await asyncio.sleep(0.2)
    unchanged = await large.save()
    assert unchanged.report.read_bytes < 1 << 20
    await asyncio.to_thread(edit_huge, huge)
    edited = await large.save()
    assert edited.report.read_bytes >= MIB << 20
    assert edited.checkpoint.new_bytes < 3 << 20
    await asyncio.sleep(0.2)
    assert (await large.save()).report.read_bytes < 1 << 20
    back = await large.restored("back")
    assert await asyncio.to_thread(are_equal, huge, back / "huge")
    if is_sparse:
        assert (back / "huge").stat().st_blocks * 512 < (MIB << 20) // 2


async def test_a_huge_file_that_changes_in_the_last_moment(
    large: Large, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read after the pause; if it is as it was then, the save is of that instant, else it says so."""
    huge = large.tree / "huge"
    await asyncio.to_thread(make_huge, huge, is_sparse=False)
    await large.save()
    monkeypatch.setattr(captures, "LATE_BYTES", 1 << 20)
    at_freeze = edit_huge
    saved = await large.checkpoints.save(
        PROJECT, {"workspace": large.tree}, freeze=lambda: edited_first(large, huge, at_freeze)
    )
    assert saved.checkpoint.unstable == 0
    assert await asyncio.to_thread(are_equal, huge, await large.restored("back") / "huge")
    assert (await large.save()).report.read_bytes < 1 << 20


def edited_first(
    large: Large, huge: Path, edit: Callable[[Path], None]
) -> AbstractAsyncContextManager[Still]:
    """Edit the file just before everything stands still."""
    edit(huge)
    return large.engine.pause(large.project.id)


def make_huge(file: Path, *, is_sparse: bool) -> None:
    """Write a file of ``MIB`` MiB that does not compress; of a sparse one a twentieth has data."""
    block = os.urandom(1 << 20)
    with file.open("wb") as target:
        for number in range(MIB):
            if is_sparse and number % 20:
                target.seek(1 << 20, os.SEEK_CUR)
            else:
                target.write(number.to_bytes(8, "big") + block[8:])
        target.truncate(MIB << 20)


def edit_huge(file: Path) -> None:
    """Change some bytes of one block."""
    with file.open("r+b") as target:
        target.seek((MIB // 2 << 20) + 5000)
        target.write(os.urandom(100))


def are_equal(one: Path, other: Path) -> bool:
    """Compare two files block by block."""
    with one.open("rb") as left, other.open("rb") as right:
        while part := left.read(1 << 20):
            if right.read(1 << 20) != part:
                return False
        return right.read(1) == b""
