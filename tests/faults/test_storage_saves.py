"""Whatever fails, and whenever: the last confirmed checkpoint is whole, and a repeat converges."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from anyon.clock import SystemClock
from anyon.domain.errors import AnyonError
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.files import FilesStore
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.objects import ObjectStore
from anyon.storage.wrappers import RetryingStore
from anyon.testing.store_faults import FailsAtN, FaultyStore, UnsteadyStore
from anyon.testing.trees import describe

PROJECT = "user/project"


def checkpoints(store: ObjectStore, tmp_path: Path, name: str = "cache") -> Checkpoints:
    return Checkpoints(store, cache=tmp_path / name, clock=SystemClock())


def fill(root: Path, seed: int) -> None:
    """Write some files: most the same for every seed, some of its own."""
    source = random.Random(seed)
    root.mkdir(exist_ok=True)
    for number in range(6):
        (root / f"d{number}").mkdir(exist_ok=True)
        for inner in range(4):
            (root / f"d{number}/{inner}").write_bytes(b"%d %d" % (number, inner) * 50)
    for _ in range(3):
        (root / f"d{source.randrange(6)}/own").write_bytes(source.randbytes(3000))


async def assert_restores(store: ObjectStore, tmp_path: Path, name: str, wanted: dict) -> None:
    """Restore the latest on a machine that knows nothing, and compare."""
    fresh = checkpoints(store, tmp_path, f"fresh-{name}")
    assert (await fresh.verify(PROJECT, read_data=True)).is_whole
    await fresh.restore(PROJECT, None, {"workspace": tmp_path / name})
    assert describe(tmp_path / name) == wanted
    await fresh.close()


async def calls_of(work: str, tmp_path: Path) -> int:
    """Return how many calls to the store the work needs when nothing fails."""
    store = FailsAtN(MemoryStore(), 10**9)
    root = tmp_path / f"count-{work}"
    fill(root, 1)
    made = checkpoints(store, tmp_path, f"count-cache-{work}")
    await made.save(PROJECT, {"workspace": root})
    fill(root, 2)
    before = store.calls
    if work == "save":
        await made.save(PROJECT, {"workspace": root})
    else:
        await made.collect(PROJECT, grace=timedelta(days=-1))
    await made.close()
    return store.calls - before


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
async def test_a_save_that_fails_at_every_call(tmp_path: Path, after: bool, lasting: bool) -> None:
    """At each call of a save: the former checkpoint or the new one, whole; then a retry is done."""
    total = await calls_of("save", tmp_path)
    assert total >= 4
    for n in range(1, total + 1):
        store = MemoryStore()
        root = tmp_path / f"tree-{n}"
        fill(root, 1)
        made = checkpoints(store, tmp_path, f"cache-{n}")
        await made.save(PROJECT, {"workspace": root})
        old = describe(root)
        fill(root, 2)
        new = describe(root)
        failing = Checkpoints(
            FailsAtN(store, n, after=after, lasting=lasting),
            cache=tmp_path / f"cache-{n}",
            clock=SystemClock(),
        )
        with pytest.raises(AnyonError):
            await failing.save(PROJECT, {"workspace": root})
        # The last call moves the head: if it failed after its effect the new one is there.
        await assert_restores(store, tmp_path, f"former-{n}", new if after and n == total else old)
        await made.save(PROJECT, {"workspace": root})
        await assert_restores(store, tmp_path, f"new-{n}", new)
        await made.collect(PROJECT, grace=timedelta(days=-1))
        await assert_restores(store, tmp_path, f"collected-{n}", new)
        for one in (made, failing):
            await one.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_collection_that_fails_at_every_call(tmp_path: Path, after: bool) -> None:
    """At each call of a collection: the latest stays whole, and the next collection finishes."""
    total = await calls_of("collect", tmp_path)
    for n in range(1, total + 1):
        store = MemoryStore()
        root = tmp_path / f"tree-{n}"
        made = checkpoints(store, tmp_path, f"cache-{n}")
        for seed in (1, 2):
            fill(root, seed)
            await made.save(PROJECT, {"workspace": root})
        failing = checkpoints(FailsAtN(store, n, after=after), tmp_path, f"cache-{n}")
        with pytest.raises(AnyonError):
            await failing.collect(PROJECT, grace=timedelta(days=-1))
        await assert_restores(store, tmp_path, f"former-{n}", describe(root))
        store.delete(f"{PROJECT}/collection")  # as if its lease had run out
        await made.collect(PROJECT, grace=timedelta(days=-1))
        await assert_restores(store, tmp_path, f"collected-{n}", describe(root))
        for one in (made, failing):
            await one.close()


async def test_a_wrong_order_would_be_noticed(tmp_path: Path) -> None:
    """The sweep is not blind: a store that loses packs it confirmed is found out."""

    class Losing(FaultyStore):
        def put(self, key: str, data: bytes, *, if_generation: str | None = None) -> str:
            """Confirm a pack and keep nothing of it."""
            return "1" if "/packs/" in key else super().put(key, data, if_generation=if_generation)

    store = MemoryStore()
    fill(tmp_path / "tree", 1)
    made = checkpoints(Losing(store, lambda *_: False), tmp_path)
    await made.save(PROJECT, {"workspace": tmp_path / "tree"})
    assert not (await made.verify(PROJECT)).is_whole
    await made.close()


async def test_an_unsteady_store_is_outlasted(tmp_path: Path) -> None:
    """With a third of all calls failing, before or after their effect, saves and restores succeed."""
    inner = MemoryStore()
    store = RetryingStore(
        UnsteadyStore(inner, seed=3), patience=timedelta(seconds=10_000), sleep=lambda _: None
    )
    made = checkpoints(store, tmp_path)
    for seed in range(8):
        fill(tmp_path / "tree", seed)
        await made.save(PROJECT, {"workspace": tmp_path / "tree"})
        await made.collect(PROJECT, grace=timedelta(days=-1))
    await made.close()
    assert len(await checkpoints(inner, tmp_path).list(PROJECT)) == 8
    await assert_restores(inner, tmp_path, "back", describe(tmp_path / "tree"))


SAVER = """
import asyncio, sys
from pathlib import Path
from anyon.clock import SystemClock
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.files import FilesStore

async def main(base):
    made = Checkpoints(FilesStore(base / "store"), cache=base / "cache", clock=SystemClock())
    number = 0
    while True:
        number += 1
        for name in ("first", "last"):
            (base / "tree" / name).write_text(str(number))
            (base / "tree" / f"big-{name}").write_bytes(str(number).encode() * 100_000)
        saved = await made.save("user/project", {"workspace": base / "tree"})
        print(number, saved.checkpoint.id, flush=True)

asyncio.run(main(Path(sys.argv[1])))
"""


def wait_for_a_line(log: Path) -> None:
    """Return when *log* has a whole line, or after a minute."""
    deadline = time.monotonic() + 60
    while b"\n" not in log.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.01)


async def test_killed_savers(tmp_path: Path) -> None:
    """After a kill -9 at any moment the latest is whole, and not older than what was confirmed."""
    (tmp_path / "tree").mkdir()
    source = random.Random(5)
    for turn in range(10):
        log = tmp_path / "log"
        with log.open("wb") as out:
            saver = subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)], stdout=out)
        await asyncio.to_thread(wait_for_a_line, log)
        await asyncio.sleep(source.random() * 0.2)
        os.kill(saver.pid, signal.SIGKILL)
        saver.wait()
        confirmed = int(log.read_text().rpartition("\n")[0].splitlines()[-1].split()[0])
        store = FilesStore(tmp_path / "store")
        made = checkpoints(store, tmp_path, f"fresh-{turn}")
        assert (await made.verify(PROJECT, read_data=True)).is_whole
        await made.restore(PROJECT, None, {"workspace": tmp_path / f"back-{turn}"})
        first, last = (int((tmp_path / f"back-{turn}/{n}").read_text()) for n in ("first", "last"))
        assert first == last >= confirmed
        big = (tmp_path / f"back-{turn}/big-last").read_bytes()
        assert big == str(last).encode() * 100_000
        await made.close()


async def test_a_killed_restore_leaves_no_target(tmp_path: Path) -> None:
    """A restore killed at any moment leaves the whole target or none, and a repeat succeeds."""
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(400):
        (root / str(number)).write_bytes(b"%d" % number * 2000)
    store = FilesStore(tmp_path / "store")
    made = checkpoints(store, tmp_path)
    await made.save(PROJECT, {"workspace": root})
    wanted = describe(root)
    program = SAVER[: SAVER.index("async def main")] + (
        "async def main(base):\n"
        "    made = Checkpoints(FilesStore(base / 'store'), cache=base / 'c', clock=SystemClock())\n"
        "    print('ready', flush=True)\n"
        "    await made.restore('user/project', None, {'workspace': base / 'back'})\n"
        "asyncio.run(main(Path(sys.argv[1])))\n"
    )
    interrupted = 0
    for turn in range(8):
        restorer = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert restorer.stdout is not None
        assert await asyncio.to_thread(restorer.stdout.readline) == b"ready\n"
        await asyncio.sleep(0.015 * turn)
        os.kill(restorer.pid, signal.SIGKILL)
        restorer.communicate()
        if (tmp_path / "back").exists():
            assert describe(tmp_path / "back") == wanted
            (tmp_path / "back").rename(tmp_path / f"done-{turn}")
        else:
            interrupted += 1
    assert interrupted > 0
    await made.restore(PROJECT, None, {"workspace": tmp_path / "back"})
    assert describe(tmp_path / "back") == wanted
    assert [p.name for p in tmp_path.iterdir() if "restoring" in p.name] == []
    await made.close()
