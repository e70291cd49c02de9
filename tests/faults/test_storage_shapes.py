# Names are bytes here, which pathlib does not take.
# ruff: noqa: PTH118, PTH123, PTH208
"""What a container plants to lead the saver astray, on both engines, in both kinds of trees.

Every defence has its control: the plain way of doing the same falls for it.
``ANYON_SWAP_SECONDS`` says how long each swapper is run against (3 if not said).
"""

import asyncio
import importlib.util
import os
import shutil
import stat
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

import pytest

from anyon.clock import SystemClock
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.engines import docker_sockets
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.docker import DockerEngine
from anyon.engines.layers import KeepsLayers
from anyon.engines.pauses import PausingEngine
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.folders import remove_tree
from anyon.testing.trees import describe
from anyon.testing.worlds import World, living, until

SECONDS = float(os.environ.get("ANYON_SWAP_SECONDS", "3"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240 + 4 * SECONDS)]
DEPTH = 1200
_spec = importlib.util.spec_from_file_location(
    "independent_reader", Path(__file__).parents[1] / "unit/storage/independent_reader.py"
)
assert _spec is not None
assert _spec.loader is not None
independent_reader = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(independent_reader)

# In every place: a directory that is a link now and then, and a file that is one, or a FIFO.
SWAP = """
import os, sys
secret, *places = sys.argv[1:]
for place in places:
    os.makedirs(place + "/d")
    open(place + "/d/inner", "w").write("inner")
    open(place + "/f", "w").write("a file")
    os.symlink(secret, place + "/link")
    os.symlink(secret + "/marker", place + "/f-link")
    os.mkfifo(place + "/pipe")
def swap(place, name, other):
    a, b, c = place + "/" + name, place + "/" + other, place + "/aside-" + name
    os.rename(a, c); os.rename(b, a); os.rename(a, b); os.rename(c, a)
while True:
    for place in places:
        swap(place, "d", "link"); swap(place, "f", "f-link"); swap(place, "f", "pipe")
"""
PLANT = f"""
import os, socket, sys
secret, *places = sys.argv[1:]
for place in places:
    os.makedirs(place); os.chdir(place)
    os.symlink(secret, "to-directory"); os.symlink(secret + "/marker", "to-file")
    os.symlink("../" * 40 + "etc/shadow", "up")
    open("one", "w").write("one file"); os.link("one", "other")
    os.mkfifo("pipe"); socket.socket(socket.AF_UNIX).bind("socket")
    for name in (b"n" * 255, b"\\xff\\xfe", b"line\\nbreak", b"-rf"):
        open(name, "wb").write(name)
    open("setuid", "w").write("x"); os.chmod("setuid", 0o4755)
    for _ in range({DEPTH}):
        os.mkdir("d"); os.chdir("d")
    open("bottom", "w").write("reached")
"""


@dataclass
class Hostile:
    """A project whose programs are hostile, and a place outside that they must not lead to."""

    world: World
    project: Project
    secret: Path
    marker: bytes
    planted: dict[str, Path]
    """Where they plant, on this machine: in the workspace, and outside the project's files."""

    async def run(self, script: str) -> str:
        """Start a script inside; return the process's id."""
        inside = ["/workspace/planted", "/usr/local/planted"]
        argv = ["python3", "-c", script, str(self.secret), *inside]
        process = await self.world.services.processes.exec(LOCAL_ACTOR, self.project.id, argv)
        return process.id

    def is_in(self, store: MemoryStore) -> bool:
        """Say whether anything of the secret place is in a checkpoint: its name or its content."""
        objects = {info.key: store.get(info.key).data for info in store.list("")}
        bucket = independent_reader.Bucket(objects, PLACE)
        packs = [key.rpartition("/")[2] for key in objects if "/packs/" in key]
        chunks = [chunk for pack in packs for chunk in bucket.chunks_of(pack, PLACE).values()]
        return any(self.marker in chunk or b"only-outside" in chunk for chunk in chunks)


PLACE = "user/hostile"


def missing(reason: str) -> NoReturn:
    """Skip at home; fail where everything must be there."""
    pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@pytest.fixture(params=["bubblewrap", "docker"])
async def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Hostile]:
    """A project of each engine, whose programs are root inside."""
    if os.geteuid() != 0:
        missing("only root sees both engines' layers")
    home = tmp_path / "home"
    layers: KeepsLayers | None = None
    if request.param == "bubblewrap":
        if shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin") is None:
            missing("no python3 of the system's own")
        engine = PausingEngine(BubblewrapEngine(home / "engine", hidden=[home]))
    else:
        socket = docker_sockets.find()
        if socket is None:
            missing("no Docker engine answers: run scripts/services/docker.sh start")
        docker = DockerEngine(
            socket, instance=f"test-{uuid4()}", uid=0, image="anyon/workspace:full"
        )
        engine, layers = PausingEngine(docker), docker.layers
    secret = tmp_path / "secret"
    secret.mkdir()
    marker = f"secret {uuid4()}".encode()
    (secret / "marker").write_bytes(marker)
    (secret / "only-outside").write_bytes(marker)
    async with living(home, engine=engine) as world:
        project = await world.project("hostile")
        upper = home / "state" / project.id / "system/upper"
        if layers is not None:
            layer = await layers.layer(project.id)
            assert layer is not None
            upper = layer.path
        workspace = Path(project.path) / "planted"
        planted = {"workspace": workspace, "system": upper / "usr/local/planted"}
        try:
            yield Hostile(world, project, secret, marker, planted)
        finally:
            await world.services.projects.delete(LOCAL_ACTOR, project.id)


async def test_swapped_names_lead_nowhere(hostile: Hostile, tmp_path: Path) -> None:
    """While names become links and FIFOs and back, nothing from outside gets into any checkpoint."""
    process = await hostile.run(SWAP)
    await _until_planted(hostile, "pipe")
    store = MemoryStore()
    checkpoints = Checkpoints(store, cache=tmp_path / "cache", clock=SystemClock())
    end, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < end or count < 5:
        # Not frozen, and nothing remembered: every name is looked at while it changes.
        await checkpoints.save(PLACE, hostile.planted)
        count += 1
    await checkpoints.close()
    assert not hostile.is_in(store)
    leaks = 0
    end = time.monotonic() + 60
    while not leaks and time.monotonic() < end:
        leaks = sum(await asyncio.gather(*(
            asyncio.to_thread(_plain_walk, place, hostile.marker)
            for place in hostile.planted.values()
        )))  # fmt: skip
    assert leaks, "the control: a walk by names never was led outside"
    await hostile.world.services.processes.kill(LOCAL_ACTOR, process)


def _plain_walk(root: Path, marker: bytes) -> int:
    """Read a tree by names, as most programs do; return how often that led outside."""
    leaks = 0
    for _ in range(200):
        for directory, _folders, files in os.walk(root):
            for name in files:
                try:
                    fd = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_NONBLOCK)
                except OSError:
                    continue
                leaks += os.read(fd, 100) == marker if stat.S_ISREG(os.fstat(fd).st_mode) else 0
                os.close(fd)
    return leaks


async def test_planted_shapes_come_back_or_are_noted(hostile: Hostile, tmp_path: Path) -> None:
    """Links, names, depths and rights come back as they are; what is no file is noted and not opened."""
    await hostile.run(PLANT)
    await _until_planted(hostile, "d/" * DEPTH + "bottom")
    for place in hostile.planted.values():
        os.mknod(place / "zero", stat.S_IFCHR, os.makedev(1, 5))  # as one with such powers could
        os.mknod(place / "disk", stat.S_IFBLK, os.makedev(7, 0))
    store = MemoryStore()
    checkpoints = Checkpoints(store, cache=tmp_path / "cache", clock=SystemClock())
    saved = await checkpoints.save(PLACE, hostile.planted)
    skipped = sorted((path.rpartition("/")[2], what) for path, what in saved.report.skipped)
    shapes = [("disk", "device"), ("pipe", "fifo"), ("socket", "socket"), ("zero", "device")]
    assert skipped == sorted(shapes * 2)
    back = {name: tmp_path / f"back-{name}" for name in hostile.planted}
    await checkpoints.restore(PLACE, None, back)
    await checkpoints.close()
    assert not hostile.is_in(store)
    for name, place in hostile.planted.items():
        # Its own path is long: described from within, the deepest names are in reach.
        assert describe(back[name]) == describe(place)
        remove_tree(bytes(back[name]))


async def _until_planted(hostile: Hostile, last: str) -> None:
    async def is_there() -> bool:
        return all(os.path.lexists(place / last) for place in hostile.planted.values())

    await until(is_there)


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[Path]:
    """The same shapes, planted here: for what the plain ways do with them."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "marker").write_text("secret")
    script = f"import sys; sys.argv[1:] = {[str(secret), str(tmp_path / 'planted')]!r}\n{PLANT}"
    subprocess.run(["python3", "-c", script], check=True, timeout=60)
    yield tmp_path / "planted"
    for name in ("planted", "copy"):  # deeper than pytest can remove
        remove_tree(bytes(tmp_path / name))


def test_a_plain_open_of_a_fifo_hangs(planted: Path) -> None:
    """The control: who opens a FIFO by its name waits for a writer that never comes."""
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(["cat", planted / "pipe"], timeout=2, check=False)


def test_plain_walks_end_at_depth(planted: Path) -> None:
    """The control: walks by recursion, the library's own, die in the tree that is captured above."""
    for walk in (_walked, _copied):
        with pytest.raises((RecursionError, OSError, shutil.Error)):
            walk(planted)


def _walked(place: Path) -> None:
    for _ in os.walk(place):
        pass


def _copied(place: Path) -> None:
    shutil.copytree(place, place.with_name("copy"), symlinks=True)


def test_plain_copies_follow_split_and_fail(planted: Path) -> None:
    """The controls: a copy follows links outside, splits hard links, and cannot name what is long."""
    remove_tree(bytes(planted / "d"))
    (planted / "pipe").unlink()
    (planted / "socket").unlink()
    (planted / "up").unlink()
    copy = planted.with_name("copy")
    shutil.copytree(planted, copy)
    assert (copy / "to-directory/marker").read_text() == "secret"
    assert (planted / "one").lstat().st_ino == (planted / "other").lstat().st_ino
    assert (copy / "one").lstat().st_ino != (copy / "other").lstat().st_ino
    with pytest.raises(OSError, match="name too long"):
        (planted / ("n" * 255 + ".part")).touch()  # as who writes beside and renames would
    with pytest.raises(UnicodeEncodeError):
        "\n".join(os.listdir(planted)).encode()


def test_a_plain_open_of_a_device_reads_it(tmp_path: Path) -> None:
    """The control: a device is opened by its name like a file, and gives bytes without an end."""
    if os.geteuid() != 0:
        missing("only root makes devices")
    os.mknod(tmp_path / "zero", stat.S_IFCHR, os.makedev(1, 5))
    try:
        with open(tmp_path / "zero", "rb") as device:
            assert device.read(4096) == bytes(4096)
    except PermissionError:
        pytest.skip("this file system opens no devices")
