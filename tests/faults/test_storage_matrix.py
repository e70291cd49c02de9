"""Every kind of store fault in every operation: all converges after it, nothing acknowledged is lost.

The short form, one or two faults a case and few kinds over S3, belongs to each run of the tests. The
long one, every kind at every request over both, is asked for with ``ANYON_FAULT_MATRIX=full``.
"""

import itertools
import os
import shutil
import subprocess
import uuid
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from anyon.clock import SystemClock
from anyon.db import litestream
from anyon.db import snapshots as database_snapshots
from anyon.db.sqlite import library
from anyon.domain.errors import AnyonError
from anyon.services.states import Source, States, choose
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers import gcs, s3
from anyon.storage.keys import PlainKeys
from anyon.storage.objects import ObjectStore
from anyon.storage.owners import TakeOver
from anyon.storage.replicas import Replica
from anyon.storage.retention import Retention
from anyon.storage.snapshots import Snapshots
from anyon.storage.wrappers import RetryingStore
from anyon.testing.fault_proxy import FAULTS, FaultProxy, fault_proxy
from anyon.testing.gcs_emulator import emulator, make_bucket, program
from anyon.testing.s3_emulator import credentials, is_installed, make_s3_bucket, s3_emulator
from anyon.testing.trees import describe

IS_FULL = os.environ.get("ANYON_FAULT_MATRIX") == "full"
S3_FAULTS = FAULTS if IS_FULL else ("reset_after", "cut_answer")
MOST_REQUESTS = 60
PROJECT = "user/project"
LEASE = timedelta(minutes=5)
REFUSED = "status_400"
"""What a service answers to a body that does not fit its checksum; the emulators keep such a one."""

pytestmark = pytest.mark.timeout(600 if IS_FULL else 120)


@pytest.fixture(scope="module")
def service(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Run one emulator for this module; yield its kind and its URL."""
    is_there = program() is not None if request.param == "gcs" else is_installed()
    if not is_there:
        if os.environ.get("CI"):
            pytest.fail(f"the emulator of {request.param} is not installed")
        pytest.skip(f"the emulator of {request.param} is not installed")
    with emulator() if request.param == "gcs" else s3_emulator() as url:
        yield request.param, url


@dataclass
class Stage:
    """A bucket behind a proxy, and what acts on it."""

    kind: str
    proxy: FaultProxy
    store: Callable[[timedelta], ObjectStore]
    place: Path
    made: list[Checkpoints] = field(default_factory=list)

    def server(self, name: str, patience: timedelta = timedelta(seconds=20)) -> Checkpoints:
        """Return a server's checkpoints; a short *patience* lets an outage be felt."""
        found = Checkpoints(
            self.store(patience),
            cache=self.place / f"cache-{name}-{len(self.made)}",
            clock=SystemClock(),
            retention=Retention(
                everything=timedelta(), hourly=timedelta(), daily=timedelta(), monthly=timedelta()
            ),
            server=name,
        )
        self.made.append(found)
        return found

    def tree(self, text: str) -> Path:
        """Return the tree, changed to *text*."""
        root = self.place / "tree"
        (root / "deep" / "er").mkdir(parents=True, exist_ok=True)
        for number in range(5):
            (root / "deep" / f"file-{number}").write_text(f"{text} {number} " * 50)
        return root


@pytest.fixture
async def stage(
    service: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """Make an empty bucket behind a proxy, with drivers that lose patience soon."""
    kind, url = service
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    (make_bucket if kind == "gcs" else make_s3_bucket)(url, bucket)
    with fault_proxy(url) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        monkeypatch.setattr(gcs, "TIMEOUT", (5.0, 1.0))
        monkeypatch.setattr(s3, "SILENCE_TIMEOUT", timedelta(seconds=1))
        bare: ObjectStore = (
            gcs.GcsStore(bucket)
            if kind == "gcs"
            else s3.S3Store(bucket, environment=credentials(proxy.url))
        )

        def store(patience: timedelta) -> ObjectStore:
            return RetryingStore(bare, patience=patience, first_pause=timedelta(milliseconds=5))

        found = Stage(kind, proxy, store, tmp_path)
        yield found
        proxy.choose = lambda _number, _method, _path: None
        for made in found.made:
            await made.close()


Act = Callable[[timedelta], Awaitable[object]]


@asynccontextmanager
async def faults(stage: Stage, fault: str, at: int, *, lasting: bool) -> AsyncIterator[None]:
    """Spoil the *at*-th request from now on, or all from there on; healed at the end."""
    # A single spoilt upload is replaced by the driver for Google's service; else see REFUSED.
    if fault == "corrupt_request" and (lasting or stage.kind == "s3"):
        fault = REFUSED
    first = stage.proxy.requests + at

    def choose(number: int, _method: str, _path: str) -> str | None:
        return fault if number == first or (lasting and number > first) else None

    stage.proxy.choose = choose
    try:
        yield
    finally:
        stage.proxy.choose = lambda _number, _method, _path: None


def moments(case: str) -> Iterator[tuple[int, bool]]:
    """Yield which requests are spoilt: one of two each for the short form, elsewhere in each case."""
    if IS_FULL:
        yield from ((at, lasting) for at in range(1, MOST_REQUESTS) for lasting in (False, True))
        return
    seed = zlib.crc32(case.encode())
    once, lasting = (1 + seed % 6, False), (1 + seed // 7 % 4, True)
    if case.startswith("hang"):  # each costs a timeout
        yield once if seed % 2 else lasting
    else:
        yield from (once, lasting)


async def spoilt(stage: Stage, fault: str, at: int, lasting: bool, act: Act) -> object | None:
    """Return what *act* gives under the fault, or None where it ended with an error of the tree."""
    # One fault is sat out; an outage is not, or each case would take as long as the patience.
    patience = timedelta(milliseconds=30) if lasting else timedelta(seconds=20)
    async with faults(stage, fault, at, lasting=lasting):
        try:
            return await act(patience)
        except AnyonError:
            return None


async def checkpoint(stage: Stage, fault: str, at: int, lasting: bool) -> None:
    """A save that returned is the last state; one that failed left the former one or itself, whole."""
    before = await stage.server("one").save(PROJECT, {"workspace": stage.tree("before")})
    root = stage.tree(f"after {fault} {at} {lasting}")

    async def act(patience: timedelta) -> object:
        return (await stage.server("one", patience).save(PROJECT, {"workspace": root})).checkpoint

    saved = await spoilt(stage, fault, at, lasting, act)
    healed = stage.server("one")
    latest = await healed.latest(PROJECT)
    assert latest is not None
    assert saved is None or latest == saved
    assert (await healed.verify(PROJECT, read_data=True)).is_whole
    again = await healed.save(PROJECT, {"workspace": root})
    assert latest.id in {before.checkpoint.id, again.checkpoint.id, again.checkpoint.parent}
    await comes_back(stage, root)


async def comes_back(stage: Stage, root: Path) -> None:
    """See that the last state is restored as it was saved."""
    target = stage.place / f"back-{uuid.uuid4().hex[:8]}"
    await stage.server("reader").restore(PROJECT, None, {"workspace": target})
    assert describe(target) == describe(root)
    shutil.rmtree(target)


async def restore(stage: Stage, fault: str, at: int, lasting: bool) -> None:
    """A restore that returned is whole; one that failed left nothing in the place."""
    root = stage.tree("saved")
    await stage.server("one").save(PROJECT, {"workspace": root})
    target = stage.place / f"target-{at}-{lasting}"

    async def act(patience: timedelta) -> object:
        return await stage.server("one", patience).restore(PROJECT, None, {"workspace": target})

    done = await spoilt(stage, fault, at, lasting, act)
    if done is not None:
        assert describe(target) == describe(root)
    else:
        assert (
            not target.exists() or not any(target.iterdir()) or describe(target) == describe(root)
        )
    await comes_back(stage, root)


async def collection(stage: Stage, fault: str, at: int, lasting: bool) -> None:
    """Whatever a collection did, the last state is whole, and the next collection ends."""
    server = stage.server("one")
    for number in range(3):
        root = stage.tree(f"state {number} {at} {lasting}")
        await server.save(PROJECT, {"workspace": root})

    async def act(patience: timedelta) -> object:
        return await stage.server("one", patience).collect(PROJECT, grace=timedelta(days=-1))

    await spoilt(stage, fault, at, lasting, act)
    healed = stage.server("one")
    assert (await healed.verify(PROJECT, read_data=True)).is_whole
    await release_collection(healed, stage)
    await healed.collect(PROJECT, grace=timedelta(days=-1))
    assert len(await healed.list(PROJECT)) == 1
    await comes_back(stage, root)


async def release_collection(healed: Checkpoints, stage: Stage) -> None:
    """Let the lease of a collector that an outage cut off run out, as time would."""
    stage.store(timedelta(seconds=20)).delete(f"{PROJECT}/collection")
    await healed.latest(PROJECT)


async def fork(stage: Stage, fault: str, at: int, lasting: bool) -> None:
    """A fork that returned is whole without its source; one that failed is undone, and neither harms the source."""
    root, into = stage.tree(f"forked {fault} {at} {lasting}"), f"user/fork-{at}-{lasting}"
    server = stage.server("one")
    source = (await server.save(PROJECT, {"workspace": root})).checkpoint.id

    async def act(patience: timedelta) -> object:
        return await stage.server("one", patience).fork(PROJECT, source, into, rows=b"rows")

    done = await spoilt(stage, fault, at, lasting, act)
    healed = stage.server("one")
    if done is None:
        await healed.delete(into)
        await healed.fork(PROJECT, source, into, rows=b"rows")
    await healed.delete(PROJECT)
    assert (await healed.verify(into, read_data=True)).is_whole
    await healed.delete(into)
    assert list(stage.store(timedelta(seconds=20)).list("user/")) == []


async def takeover(stage: Stage, fault: str, at: int, lasting: bool) -> None:
    """After a takeover, done or repeated, the former owner is refused and the new one is not."""
    name = f"{at}-{lasting}"
    former, root = stage.server(f"former-{name}"), stage.tree("owned")
    held = await former.claim(PROJECT, length=LEASE, take_over=TakeOver.ALWAYS)
    await former.save(PROJECT, {"workspace": root}, epoch=held.epoch)

    async def act(patience: timedelta) -> object:
        return await stage.server(f"new-{name}", patience).claim(
            PROJECT, length=LEASE, take_over=TakeOver.ALWAYS
        )

    await spoilt(stage, fault, at, lasting, act)
    healed = stage.server(f"new-{name}")
    taken = await healed.claim(PROJECT, length=LEASE, take_over=TakeOver.ALWAYS)
    assert taken.epoch > held.epoch
    with pytest.raises(AnyonError) as caught:
        await former.save(PROJECT, {"workspace": stage.tree("stale")}, epoch=held.epoch)
    assert caught.value.code == "ownership_lost"
    root = stage.tree(f"new owner's {name}")
    await healed.save(PROJECT, {"workspace": root}, epoch=taken.epoch)
    await comes_back(stage, root)


async def verify(stage: Stage, fault: str, at: int, lasting: bool) -> None:
    """A check under a fault changes nothing, and after it says that all is whole."""
    root = stage.tree("checked")
    await stage.server("one").save(PROJECT, {"workspace": root})

    async def act(patience: timedelta) -> object:
        return await stage.server("one", patience).verify(PROJECT, read_data=True)

    await spoilt(stage, fault, at, lasting, act)
    assert (await stage.server("one").verify(PROJECT, read_data=True)).is_whole
    await comes_back(stage, root)


async def state(stage: Stage, fault: str, at: int, lasting: bool) -> None:
    """Of the server's database, what a round said it carried on comes back; after it, all does."""
    place = stage.place / f"state-{at}-{lasting}"
    place.mkdir()
    rows = Rows(place)
    server = f"server-{at}-{lasting}"

    async def act(patience: timedelta) -> object:
        store = stage.store(patience)
        now = datetime.now(UTC)
        Replica(store, PlainKeys(), server, rows.replica).mirror(now)
        snapshots = Snapshots(store, PlainKeys(), server)
        snapshots.put(rows.copied(), now)
        snapshots.prune(now)
        return now

    said = await spoilt(stage, fault, at, lasting, act)
    healed = stage.store(timedelta(seconds=20))
    if said is not None:
        assert rows.brought_back(healed, server, None) == rows.count
    rows.write(3)
    Replica(healed, PlainKeys(), server, rows.replica).mirror(datetime.now(UTC))
    Snapshots(healed, PlainKeys(), server).put(rows.copied(), datetime.now(UTC))
    for source in (Source.REPLICA, Source.SNAPSHOT):
        assert rows.brought_back(healed, server, source) == rows.count


class Rows:
    """A database, what Litestream made of it, and how much is in it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path = place / "anyon.db"
        self.replica = place / "litestream" / "replica"
        self.count = 0
        connection = library().connect(str(self.path), isolation_level=None)
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE numbers (number)")
        connection.close()
        self.write(5)

    def write(self, count: int) -> None:
        """Commit rows and let Litestream see them."""
        connection = library().connect(str(self.path), isolation_level=None)
        for number in range(count):
            connection.execute("INSERT INTO numbers VALUES (?)", (number,))
        connection.close()
        self.count += count
        text = litestream.config(
            self.path, self.place / "litestream", interval=timedelta(milliseconds=50)
        )
        (self.place / "config.json").write_text(text)
        subprocess.run(
            [
                litestream.program() or "litestream",
                *("replicate", "-once", "-force-snapshot", "-config"),
                self.place / "config.json",
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )

    def copied(self) -> Path:
        """Return a fresh copy."""
        target = self.place / "copy.db"
        target.unlink(missing_ok=True)
        database_snapshots.take(self.path, target)
        return target

    def brought_back(self, store: ObjectStore, server: str, wanted: Source | None) -> int:
        """Return how many rows come back."""
        found = choose(store, server)
        assert found is not None
        target = self.place / "back.db"
        target.unlink(missing_ok=True)
        states = States(store, PlainKeys(), found, self.place / "scratch")
        assert states.bring_back(target, wanted=wanted).source is not Source.CHECKPOINTS
        connection = library().connect(str(target))
        count = connection.execute("SELECT count(*) FROM numbers").fetchone()[0]
        connection.close()
        return int(count)


OPERATIONS = {
    one.__name__: one for one in (checkpoint, restore, collection, fork, takeover, verify, state)
}


CASES = [
    *itertools.product(["gcs"], FAULTS, OPERATIONS),
    *itertools.product(["s3"], S3_FAULTS, OPERATIONS),
]


@pytest.mark.parametrize(("service", "fault", "operation"), CASES, indirect=["service"])
async def test_a_fault_in_an_operation(stage: Stage, fault: str, operation: str) -> None:
    """Under the fault it ends well or with an error of the tree; after it everything converges."""
    for at, lasting in moments(f"{fault} {operation}"):
        before = len(stage.proxy.done)
        await OPERATIONS[operation](stage, fault, at, lasting)
        if IS_FULL and len(stage.proxy.done) == before:
            break  # the operation has no more requests
    assert set(stage.proxy.done) <= {fault, REFUSED}
    assert stage.proxy.done, "the fault was never reached"
