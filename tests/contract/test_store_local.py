"""The stores of this machine, and the wrappers, keep the contract."""

import fcntl
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from anyon.storage.drivers.files import FilesStore
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.objects import ABSENT, ObjectStore, StoreUnavailableError
from anyon.storage.observing import ObservedStore
from anyon.storage.wrappers import LimitedStore, RetryingStore, ThrottledStore
from anyon.telemetry.parts import StoreMetrics
from anyon.testing.store_contract import StoreContract
from anyon.testing.store_faults import UnsteadyStore


class TestMemory(StoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        """Return the store under test, empty."""
        return MemoryStore()


class TestFiles(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        """Return the store under test, empty."""
        return FilesStore(tmp_path)


class TestLimited(StoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        """Return the store under test, empty."""
        return LimitedStore(MemoryStore(), calls=3)


class TestThrottled(StoreContract):
    """With a limit that nothing here reaches: what it does at its limit has a test of its own."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        """Return the store under test, empty."""
        return ThrottledStore(MemoryStore(), bytes_per_second=1 << 40)


def test_writes_keep_to_a_bandwidth() -> None:
    """Large writes wait until what went before is through; small ones and readers never wait."""
    now, slept = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    store = ThrottledStore(
        MemoryStore(), bytes_per_second=1_000_000, sleep=sleep, monotonic=lambda: now
    )
    for number in range(5):
        store.put(f"pack-{number}", bytes(2_000_000))
    assert slept == [2.0, 2.0, 2.0, 2.0]
    store.put("head", b"small")
    store.get("pack-0")
    assert len(slept) == 4
    store.put("pack-5", bytes(2_000_000))
    assert slept[4] == pytest.approx(2.0, abs=0.01)
    now += 60
    store.put("pack-6", bytes(2_000_000))
    assert len(slept) == 5


class TestObserved(StoreContract):
    """What measures a store's calls changes none of them."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        """Return the store under test, empty."""
        return ObservedStore(MemoryStore(), StoreMetrics(CollectorRegistry()))


class TestRetrying(StoreContract):
    """Around a store that fails one call of three, before or after its effect."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        """Return the store under test, empty."""
        return RetryingStore(
            UnsteadyStore(MemoryStore(), seed=7),
            patience=timedelta(seconds=1000),
            sleep=lambda _: None,
        )


def test_a_lock_that_is_never_released(tmp_path: Path) -> None:
    """A stopped process that holds a lock of the directory makes writes fail, not wait for ever."""
    store = FilesStore(tmp_path, deadline=timedelta(milliseconds=50))
    held = [(tmp_path / "locks" / str(number)).open("w") for number in range(64)]
    for file in held:
        fcntl.flock(file, fcntl.LOCK_EX)
    with pytest.raises(StoreUnavailableError):
        store.put("key", b"value")
    for file in held:
        file.close()
    store.put("key", b"value")


@pytest.mark.parametrize("left", ["nothing", "a file"])
def test_a_directory_that_went_is_no_empty_store(tmp_path: Path, left: str) -> None:
    """Where the store's disk is gone every call is unavailable; none says that there is nothing, or begins anew."""
    root = tmp_path / "store"
    store = FilesStore(root)
    store.put("a/b", b"value")
    root.rename(tmp_path / "away")
    if left == "a file":
        root.write_text("")
    for call in (
        lambda: store.get("a/b"),
        lambda: store.head("a/b"),
        lambda: list(store.list("a/")),
        lambda: store.put("a/c", b"more"),
        lambda: store.put("a/c", b"more", if_generation=ABSENT),
        lambda: store.delete("a/b"),
    ):
        with pytest.raises(StoreUnavailableError):
            call()
    if left == "a file":
        root.unlink()
    assert not root.exists()
    (tmp_path / "away").rename(root)
    assert store.get("a/b").data == b"value"
    assert [info.key for info in store.list("")] == ["a/b"]
