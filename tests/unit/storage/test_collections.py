"""Collections that are stopped in the middle: what was saved meanwhile stays whole, and they end."""

import os
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.unit.storage.test_checkpoints import PROJECT, Ticks, settle

from anyon.domain.errors import AnyonError
from anyon.storage import collection, owners, saves
from anyon.storage.archives import Archive, OwnershipLostError
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.collection import CollectionBusyError
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.keys import PlainKeys
from anyon.storage.knowledge import Knowledge
from anyon.storage.objects import StoreUnavailableError
from anyon.storage.owners import TakeOver
from anyon.storage.packs import MARK_BYTES
from anyon.storage.retention import Retention
from anyon.storage.saves import Save, Wish
from anyon.storage.uploads import RESUMABLE, Stop, mark_of

HOUR = timedelta(hours=1)
T0 = datetime(2030, 1, 1, tzinfo=UTC)


class Meddled(MemoryStore):
    """A store in which something happens before a call reaches it, as while its caller is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.before_put: Callable[[str], None] = lambda _: None
        self.before_delete: Callable[[str], None] = lambda _: None

    def put(self, key: str, data: bytes, *, if_generation: str | None = None) -> str:
        """Write, after what was asked for."""
        self.before_put(key)
        return super().put(key, data, if_generation=if_generation)

    def delete(self, key: str, *, if_generation: str | None = None) -> None:
        """Remove, after what was asked for."""
        self.before_delete(key)
        super().delete(key, if_generation=if_generation)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "first").write_text("first")
    settle(root)
    return root


def server(store: MemoryStore, tmp_path: Path, clock: Ticks, name: str) -> Checkpoints:
    """Return a server's view of the store."""
    return Checkpoints(store, cache=tmp_path / name, clock=clock, server=name)


async def leave_a_pack(one: Checkpoints, store: Meddled, tree: Path, epoch: int) -> None:
    """Let a save end between its packs and its checkpoint, so that they are needed by nothing."""

    def fail(key: str) -> None:
        if "/checkpoints/" in key:
            raise StoreUnavailableError("gone")

    (tree / "second").write_bytes(os.urandom(2000))
    settle(tree)
    store.before_put = fail
    with pytest.raises(StoreUnavailableError):
        await one.save(PROJECT, {"workspace": tree}, epoch=epoch)
    store.before_put = lambda _: None


def take_over_and_save(store: MemoryStore, tmp_path: Path, tree: Path, clock: Ticks) -> None:
    """Be another server: take the project, and save the files as they are."""
    archive = Archive(store, PlainKeys(), PROJECT)
    held = owners.claim(archive, "two", now=clock.now(), length=HOUR, take_over=TakeOver.ALWAYS)
    wish = Wish(trees={"workspace": tree}, reason="", at=clock.now(), epoch=held.epoch, owner="two")
    with closing(Knowledge(tmp_path / "two.db")) as knowledge:
        Save(archive, knowledge, wish, Stop()).run()


def collect(
    store: MemoryStore, clock: Ticks, epoch: int, monotonic: Callable[[], float] = time.monotonic
) -> collection.Collected:
    """Collect as the first server does."""
    return collection.collect(
        Archive(store, PlainKeys(), PROJECT),
        Retention(),
        now=clock.now(),
        grace=timedelta(hours=24),
        epoch=epoch,
        stop=Stop(),
        monotonic=monotonic,
    )


async def is_whole_after(store: Meddled, tmp_path: Path, tree: Path) -> bool:
    """Take over and save before a collector's first removal of a pack; say whether that is whole in the end."""
    clock = Ticks()
    one = server(store, tmp_path, clock, "one")
    mine = await one.claim(PROJECT, length=HOUR)
    await one.save(PROJECT, {"workspace": tree}, epoch=mine.epoch)
    await leave_a_pack(one, store, tree, mine.epoch)
    await one.close()
    clock.at += timedelta(hours=48)
    removed: list[str] = []

    def meddle(key: str) -> None:
        if "/packs/" in key:
            removed.append(key)
            if len(removed) == 1:
                take_over_and_save(store, tmp_path, tree, clock)

    store.before_delete = meddle
    collect(store, clock, mine.epoch)
    store.before_delete = lambda _: None
    assert len(removed) == 1
    two = server(store, tmp_path, clock, "two")
    seen = await two.verify(PROJECT, read_data=True)
    await two.close()
    return seen.is_whole


async def test_a_collector_that_was_stopped_removes_nothing_that_a_later_save_needs(
    tmp_path: Path, tree: Path
) -> None:
    """An old pack that it is about to remove is not taken again by who took the project over meanwhile."""
    assert await is_whole_after(Meddled(), tmp_path, tree)


async def test_without_marks_it_would(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: where equal content always makes the same pack, the last checkpoint loses it."""
    monkeypatch.setattr(saves, "mark_of", lambda *_: bytes(MARK_BYTES))
    assert not await is_whole_after(Meddled(), tmp_path, tree)


async def test_a_save_that_failed_is_carried_on(tmp_path: Path, tree: Path) -> None:
    """Tried again by the same server, on the same head and soon, it makes the same packs: they are there."""
    store, clock = Meddled(), Ticks()
    clock.at += timedelta(minutes=5)
    one = server(store, tmp_path, clock, "one")
    mine = await one.claim(PROJECT, length=HOUR)
    await one.save(PROJECT, {"workspace": tree}, epoch=mine.epoch)
    await leave_a_pack(one, store, tree, mine.epoch)
    before = {info.key for info in store.list(f"{PROJECT}/packs/")}
    await one.save(PROJECT, {"workspace": tree}, epoch=mine.epoch)
    assert {info.key for info in store.list(f"{PROJECT}/packs/")} == before
    await one.close()


@pytest.mark.parametrize(
    "other",
    [
        ("h", 1, "one", T0),
        ("g", 2, "one", T0),
        ("g", 1, "two", T0),
        ("g", 1, "one", T0 + RESUMABLE),
    ],
)
def test_marks_differ(other: tuple[str, int, str, datetime]) -> None:
    """Another head, epoch, owner or time of the day makes another mark; the same ones the same."""
    assert mark_of(*other) != mark_of("g", 1, "one", T0)
    assert mark_of("g", 1, "one", T0) == mark_of("g", 1, "one", T0 + RESUMABLE / 2)


@pytest.mark.parametrize(
    ("meanwhile", "error"), [("claim", OwnershipLostError), ("collect", CollectionBusyError)]
)
async def test_a_collector_that_stood_still_asks_before_it_goes_on(
    tmp_path: Path, tree: Path, meanwhile: str, error: type[AnyonError]
) -> None:
    """After a pause it removes no more once the project, or the lease of the collection, is another's."""
    store, clock, steady = Meddled(), Ticks(), [0.0]
    one = server(store, tmp_path, clock, "one")
    mine = await one.claim(PROJECT, length=HOUR)
    await one.save(PROJECT, {"workspace": tree}, epoch=mine.epoch)
    for _ in range(3):
        await leave_a_pack(one, store, tree, mine.epoch)
    await one.close()
    clock.at += timedelta(hours=48)
    removed: list[str] = []

    def meddle(key: str) -> None:
        if "/packs/" not in key:
            return
        removed.append(key)
        if len(removed) == 1 and meanwhile == "claim":
            take_over_and_save(store, tmp_path, tree, clock)
            steady[0] += collection.LOOK.total_seconds()
        elif len(removed) == 1:
            steady[0] += collection.LEASE.total_seconds()
            clock.at += collection.LEASE
            store.before_delete = lambda _: None
            assert collect(store, clock, mine.epoch).packs == 3

    store.before_delete = meddle
    with pytest.raises(error):
        collect(store, clock, mine.epoch, lambda: steady[0])
    assert len(removed) == 1


async def test_a_long_collection_keeps_its_lease(tmp_path: Path, tree: Path) -> None:
    """One that takes longer than its lease renews it, so that no second one begins; at its end it is free."""
    store, clock, steady = Meddled(), Ticks(), [0.0]
    one = server(store, tmp_path, clock, "one")
    mine = await one.claim(PROJECT, length=HOUR)
    await one.save(PROJECT, {"workspace": tree}, epoch=mine.epoch)
    for _ in range(4):
        await leave_a_pack(one, store, tree, mine.epoch)
    await one.close()
    clock.at += timedelta(hours=48)
    began, refused = clock.at, 0

    def meddle(key: str) -> None:
        nonlocal refused
        if "/packs/" not in key:
            return
        steady[0] += collection.LEASE.total_seconds() * 0.6
        clock.at = began + timedelta(seconds=steady[0] - 1)
        store.before_delete = lambda _: None
        if steady[0] > collection.LEASE.total_seconds() * 0.6:  # it had to be renewed since
            with pytest.raises(CollectionBusyError):
                collect(store, clock, mine.epoch)
            refused += 1
        store.before_delete = meddle

    store.before_delete = meddle
    assert collect(store, clock, mine.epoch, lambda: steady[0]).packs == 4
    assert refused == 3
    store.before_delete = lambda _: None
    assert collect(store, clock, mine.epoch).packs == 0
