"""Forks share packs: neither project ever loses what the other needs, and nothing is left over."""

import random
import shutil
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyon.domain.errors import AnyonError, NotFoundError
from anyon.storage import collection, forks, records
from anyon.storage.archives import Archive
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.forks import Loans
from anyon.storage.keys import FileKeys, Keys, PlainKeys
from anyon.storage.objects import DamagedError
from anyon.storage.records import Head
from anyon.storage.retention import Retention
from anyon.storage.uploads import Stop
from anyon.testing.store_faults import FaultyStore
from anyon.testing.trees import Described, describe

SOURCE, FORK, SECOND = "user/source", "user/fork", "user/second"
LITTLE = Retention(
    everything=timedelta(hours=1), hourly=timedelta(0), daily=timedelta(0), monthly=timedelta(0)
)
NO_GRACE = timedelta(days=-1)


class Days:
    """A clock that a test owns."""

    def __init__(self) -> None:
        self.at = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """Return the time, one second later at each asking."""
        self.at += timedelta(seconds=1)
        return self.at

    def monotonic(self) -> float:
        """Return the seconds of the same clock."""
        return self.at.timestamp()

    async def sleep(self, length: timedelta) -> None:
        """Move the clock."""
        self.at += length


class Family:
    """Some projects in one store, each with its tree, and what every checkpoint should hold."""

    def __init__(self, base: Path, keys: Keys | None = None) -> None:
        self.base = base
        self.store = MemoryStore()
        self.clock = Days()
        self.made = Checkpoints(
            self.store, cache=base / "cache", clock=self.clock, keys=keys, retention=LITTLE
        )
        self.living: dict[str, Described] = {}

    def tree(self, project: str) -> Path:
        """Return where a project's files are."""
        return self.base / "trees" / project

    async def save(self, project: str, seed: int, *, files: int = 12) -> str:
        """Edit some files of a project, most the same for every seed, and save it."""
        root = self.tree(project)
        root.mkdir(parents=True, exist_ok=True)
        source = random.Random(seed)
        for number in range(files):
            file = root / f"d{number % 5}" / str(number)
            file.parent.mkdir(exist_ok=True)
            if not file.exists():
                file.write_bytes(random.Random(number).randbytes(4000))
        (root / f"d{source.randrange(5)}/own").write_bytes(source.randbytes(9000))
        saved = await self.made.save(project, {"workspace": root}, records=project.encode())
        self.living[project] = describe(root)
        return saved.checkpoint.id

    async def fork(self, project: str, checkpoint: str, into: str) -> None:
        """Fork a checkpoint, and bring the new project's files to where it will be saved from."""
        await self.made.fork(project, checkpoint, into, rows=b"rows of the fork")
        shutil.rmtree(self.tree(into), ignore_errors=True)
        await self.made.restore(into, None, {"workspace": self.tree(into)})
        self.living[into] = describe(self.tree(into))

    async def delete(self, project: str) -> None:
        """Delete a project from the store."""
        await self.made.delete(project)
        self.living.pop(project, None)

    async def assert_whole(self) -> None:
        """Every checkpoint of every living project can be restored, the latest to what it should be."""
        for project, wanted in self.living.items():
            fresh = Checkpoints(
                self.store,
                cache=self.base / "fresh",
                clock=self.clock,
                keys=self.made._keys,
            )
            for one in await fresh.list(project):
                seen = await fresh.verify(project, one.id, read_data=True)
                assert seen.is_whole, (project, one.id, seen.problems)
            target = self.base / "back" / project
            shutil.rmtree(target, ignore_errors=True)
            await fresh.restore(project, None, {"workspace": target})
            assert describe(target) == wanted
            await fresh.close()


@pytest.fixture(params=["plain", "sealed"])
async def family(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Family]:
    """Projects in one store, with and without encryption."""
    keys: Keys = PlainKeys()
    if request.param == "sealed":
        (tmp_path / "keys.json").write_text('{"keys": ["%s"]}' % ("ab" * 32))
        keys = FileKeys(tmp_path / "keys.json")
    made = Family(tmp_path, keys)
    yield made
    await made.made.close()


async def test_a_fork_costs_the_same_for_any_size(tmp_path: Path) -> None:
    """A fork of many files makes as many requests as one of few, and stores a few hundred bytes."""
    calls = []
    for files in (3, 300):
        family = Family(tmp_path / str(files))
        checkpoint = await family.save(SOURCE, 1, files=files)
        counting = FaultyStore(family.store, lambda *_: False)
        quick = Checkpoints(counting, cache=tmp_path / "quick", clock=family.clock)
        first = await quick.fork(SOURCE, checkpoint, FORK, rows=b"rows")
        calls.append(counting.calls)
        assert first.new_bytes < 1000
        assert (first.reason, first.parent) == ("fork", None)
        assert await quick.records(FORK) == b"rows"
        await quick.close()
        await family.made.close()
    assert calls[0] == calls[1] <= 12


async def test_a_fork_goes_on_from_its_source(family: Family) -> None:
    """The first save of a fork uploads only what changed, under the family's key; both are whole."""
    checkpoint = await family.save(SOURCE, 1, files=200)
    await family.fork(SOURCE, checkpoint, FORK)
    await family.save(FORK, 7, files=200)
    latest = await family.made.latest(FORK)
    assert latest is not None
    assert latest.new_bytes < 40_000 < latest.size_bytes
    assert latest.family == SOURCE
    await family.assert_whole()


async def test_the_source_is_deleted(family: Family) -> None:
    """A fork outlives its source, and with the fork the last object of both goes."""
    checkpoint = await family.save(SOURCE, 1)
    await family.fork(SOURCE, checkpoint, FORK)
    await family.save(SOURCE, 2)
    await family.delete(SOURCE)
    await family.assert_whole()
    left = {info.key.split("/")[2] for info in family.store.list(f"{SOURCE}/")}
    assert left == {"packs", "loans"}
    await family.save(FORK, 3)
    await family.made.collect(FORK, grace=NO_GRACE)
    await family.assert_whole()
    await family.delete(FORK)
    assert [info.key for info in family.store.list("")] == []


async def test_a_fork_of_a_fork(family: Family) -> None:
    """A grandchild needs the packs of both before it, whichever goes first."""
    await family.fork(SOURCE, await family.save(SOURCE, 1), FORK)
    await family.fork(FORK, await family.save(FORK, 2), SECOND)
    await family.delete(FORK)
    await family.assert_whole()
    await family.delete(SOURCE)
    await family.assert_whole()
    await family.save(SECOND, 3)
    await family.assert_whole()
    await family.delete(SECOND)
    assert [info.key for info in family.store.list("")] == []


async def test_a_fork_gives_back_what_it_lets_go(family: Family) -> None:
    """When a fork's content is all its own, its loans end, and its source collects as before."""
    await family.fork(SOURCE, await family.save(SOURCE, 1), FORK)
    shutil.rmtree(family.tree(FORK))
    for number in range(5):
        (family.tree(FORK) / f"d{number}").mkdir(parents=True)
    await family.save(FORK, 9, files=0)
    family.clock.at += timedelta(days=3)
    archive = Archive(family.store, family.made._keys, SOURCE)
    assert FORK in forks.loans_of(archive).forks
    await family.made.collect(FORK, grace=NO_GRACE)
    assert forks.loans_of(archive).forks == {}
    latest = await family.made.latest(FORK)
    assert latest is not None
    assert latest.borrowed == {}
    await family.assert_whole()


async def test_what_cannot_be_forked(family: Family) -> None:
    """An unknown or unconfirmed checkpoint is not found, and a taken place is refused."""
    checkpoint = await family.save(SOURCE, 1)
    with pytest.raises(NotFoundError) as refused:
        await family.made.fork(SOURCE, "nothing", FORK, rows=b"r")
    assert refused.value.code == "checkpoint_not_found"
    await family.save(SECOND, 1)
    with pytest.raises(AnyonError):
        await family.made.fork(SOURCE, checkpoint, SECOND, rows=b"r")
    await family.assert_whole()


def test_a_record_that_borrows_from_another_tenant_is_refused() -> None:
    """A checkpoint that names packs of another user is damage, whoever signed it."""
    keys = PlainKeys()
    store = MemoryStore()
    record = records.Checkpoint(
        id="1",
        project="user/fork",
        parent=None,
        at=datetime(2030, 1, 1, tzinfo=UTC),
        reason="",
        epoch=0,
        roots={},
        files=0,
        size_bytes=0,
        new_bytes=0,
        packs={},
        family="other/secret",
    )
    archive = Archive(store, keys, "user/fork")
    archive.add_checkpoint(record)
    with pytest.raises(DamagedError):
        archive.checkpoint("1")


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["save", "save", "fork", "fork", "collect", "delete", "later"]),
        st.integers(0, 4),
        st.integers(0, 9),
    ),
    min_size=4,
    max_size=14,
)


async def lived(base: Path, steps: list[Step]) -> None:
    """Carry *steps* out on five projects of one family, and look at all of them after each."""
    family = Family(base)
    names = [f"user/p{number}" for number in range(5)]
    await family.save(names[0], 0, files=6)
    for number, (what, who, choice) in enumerate(steps):
        project = names[who]
        if what == "later":
            family.clock.at += timedelta(hours=2)
        elif what == "fork":
            past = await family.made.list(project) if project in family.living else []
            into = names[choice % 5]
            if past and into not in family.living:
                await family.fork(project, past[choice % len(past)].id, into)
        elif project in family.living:
            if what == "save":
                await family.save(project, number, files=6)
            elif what == "collect":
                await family.made.collect(project, grace=timedelta(minutes=30))
            else:
                await family.delete(project)
        await family.assert_whole()
    for project in list(family.living):
        await family.delete(project)
        await family.assert_whole()
    assert [info.key for info in family.store.list("")] == []
    await family.made.close()


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_any_life_of_a_family(tmp_path_factory: pytest.TempPathFactory, steps: list[Step]) -> None:
    """Whatever is saved, forked, collected and deleted: all that lives is whole, and at the end nothing is left."""
    import asyncio  # noqa: PLC0415 - each example has a loop of its own

    asyncio.run(lived(tmp_path_factory.mktemp("family"), steps))


@pytest.mark.parametrize("naive", ["collection", "deletion"])
async def test_the_naive_marking_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, naive: str
) -> None:
    """The control: where loans are not looked at, the same steps lose a fork's data, and that is seen."""
    if naive == "collection":
        monkeypatch.setattr(forks, "lent", lambda *_, **__: frozenset())
    else:
        monkeypatch.setattr(forks, "loans_of", lambda _: Loans())
    with pytest.raises((AssertionError, AnyonError)):
        await lived_apart(tmp_path, naive)


async def lived_apart(base: Path, last: str) -> None:
    """Fork a project, let its later states share nothing with that one, then do *last* to it."""
    family = Family(base)
    await family.save("user/p0", 0, files=6)
    shutil.rmtree(family.tree("user/p0"))
    (first,) = await family.made.list("user/p0")
    await family.fork("user/p0", first.id, "user/p1")
    for number in range(5):
        (family.tree("user/p0") / f"d{number}").mkdir(parents=True)
    await family.save("user/p0", 1, files=0)
    family.clock.at += timedelta(days=2)
    if last == "collection":
        await family.made.collect("user/p0", grace=timedelta(minutes=30))
    else:
        await family.delete("user/p0")
    await family.assert_whole()
    await family.made.close()


async def test_the_control_alone_is_whole(tmp_path: Path) -> None:
    """With the loans looked at, the very steps of the control lose nothing."""
    for last in ("collection", "deletion"):
        await lived_apart(tmp_path / last, last)


class Meddled(FaultyStore):
    """Does something else to the store just before its n-th call."""

    def __init__(self, store: MemoryStore, n: int, meddle: Callable[[], Any]) -> None:
        def fails(number: int, _: str, after: bool) -> bool:
            if number == n and not after:
                meddle()
            return False

        super().__init__(store, fails)


async def forked_while(base: Path, what: str, n: int) -> tuple[Family, bool]:
    """Fork an old checkpoint while, before the n-th call, its source is collected or deleted."""
    family = Family(base)
    checkpoint = await family.save(SOURCE, 1)
    shutil.rmtree(family.tree(SOURCE))
    for number in range(5):
        (family.tree(SOURCE) / f"d{number}").mkdir(parents=True)
    await family.save(SOURCE, 2, files=0)
    family.clock.at += timedelta(days=3)
    archive = Archive(family.store, PlainKeys(), SOURCE)

    def meddle() -> None:
        if what == "delete":
            collection.forget(archive, Stop())
        else:
            collection.collect(
                archive, LITTLE, now=family.clock.now(), grace=NO_GRACE, epoch=0, stop=Stop()
            )

    slow = Checkpoints(Meddled(family.store, n, meddle), cache=base / "slow", clock=family.clock)
    try:
        await slow.fork(SOURCE, checkpoint, FORK, rows=b"rows")
        is_made = True
    except AnyonError:
        await family.made.delete(FORK)
        is_made = False
    await slow.close()
    if what == "delete":
        family.living.pop(SOURCE)
    if is_made:
        seen = await family.made.verify(FORK, read_data=True)
        assert seen.is_whole, (n, seen.problems)
    await family.assert_whole()
    return family, is_made


@pytest.mark.parametrize("what", ["collect", "delete"])
async def test_a_fork_meets_a_collection(tmp_path: Path, what: str) -> None:
    """Whenever its source is collected or deleted meanwhile: the fork is refused or whole, and leaves nothing."""
    outcomes = set()
    for n in range(1, 13):
        family, is_made = await forked_while(tmp_path / str(n), what, n)
        outcomes.add(is_made)
        for project in (FORK, SOURCE):
            await family.made.delete(project)
        assert [info.key for info in family.store.list("")] == [], n
        await family.made.close()
    assert outcomes == {True, False}


async def test_a_fork_that_looks_only_once_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the race: without its second look and its last, some forks lose data."""
    seen: dict[str, Any] = {}
    real = forks._confirmed

    def once(source: Archive, checkpoint: str) -> Any:
        if str(id(source)) not in seen:
            seen[str(id(source))] = (real(source, checkpoint), source)
        return seen[str(id(source))][0]

    monkeypatch.setattr(forks, "_confirmed", once)
    lost = 0
    for n in range(1, 13):
        try:
            family, _ = await forked_while(tmp_path / str(n), "delete", n)
            await family.made.close()
        except (AssertionError, AnyonError):
            lost += 1
    assert lost > 0


async def test_a_loan_of_a_fork_that_never_came_to_be_ends(tmp_path: Path) -> None:
    """Where a server died in the middle of a fork, the source's collection gives the loan up after the grace."""
    family = Family(tmp_path)
    checkpoint = await family.save(SOURCE, 1)
    stopped = Checkpoints(
        FaultyStore(family.store, lambda n, *_: n > 6), cache=tmp_path / "s", clock=family.clock
    )
    with pytest.raises(AnyonError):
        await stopped.fork(SOURCE, checkpoint, FORK, rows=b"rows")
    await stopped.close()
    archive = Archive(family.store, PlainKeys(), SOURCE)
    assert FORK in forks.loans_of(archive).forks
    await family.made.collect(SOURCE)
    assert FORK in forks.loans_of(archive).forks
    family.clock.at += timedelta(days=2)
    await family.made.collect(SOURCE)
    assert FORK not in forks.loans_of(archive).forks
    await family.made.close()


async def test_a_loan_is_given_back_to_a_fork_that_wakes_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork that stood still for a day and gets its head while its loan ends keeps the loan."""
    family = Family(tmp_path)
    await family.fork(SOURCE, await family.save(SOURCE, 1), FORK)
    archive = Archive(family.store, PlainKeys(), SOURCE)
    late = Archive(family.store, PlainKeys(), FORK)
    head, _ = late.head()
    family.store.delete(late.places.head)
    real, asked = Archive.is_living, []

    def is_living(self: Archive) -> bool:
        asked.append(self.project)
        if asked.count(FORK) == 2 and head is not None:
            self.store.put(self.places.head, records.encode(self.keys.current(FORK), "head", head))
        return real(self)

    monkeypatch.setattr(Archive, "is_living", is_living)
    packs = forks.lent(archive, now=family.clock.now() + timedelta(days=2), grace=timedelta(days=1))
    assert isinstance(head, Head)
    assert packs == forks.loans_of(archive).packs != frozenset()
    await family.assert_whole()
    await family.made.close()
