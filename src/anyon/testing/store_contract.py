"""What every object store does: one suite over every driver and every wrapper.

A driver's test is a fixture::

    class TestMemory(StoreContract):
        @pytest.fixture
        def store(self):
            return MemoryStore()
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest

from anyon.storage.objects import (
    ABSENT,
    InvalidKeyError,
    ObjectNotFoundError,
    ObjectStore,
    PreconditionFailedError,
)

RACERS = 32
ODD_KEYS = (
    "a",
    "a/b",
    "a/b c",
    "a/b%20c",
    "a/b+c=",
    "a.b/c",
    "a-/b",
    "한글/키",
    "q?x=1&y#z",
    "...",
    "a/..b",
    "-rf",
    "quote\"'`$(x)",
    "back\\slash",
    "x" * 200,
    "/".join("y" * 99 for _ in range(8)),
)
BAD_KEYS = ("", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a\nb", "a\0b", "x" * 201, "\udc80")


class StoreContract:
    """The promises of ``ObjectStore``; a subclass gives the fixture ``store``, empty."""

    weaker: ClassVar[frozenset[str]] = frozenset()
    """What an emulator (or, said beside it, a service) does not do: tests left out by name."""
    racers: ClassVar[int] = RACERS

    @pytest.fixture(autouse=True)
    def _leave_out_what_is_weaker(self, request: pytest.FixtureRequest) -> None:
        if request.function.__name__ in self.weaker:
            pytest.skip(
                "the emulator or the service is weaker here; the test's class says which and why"
            )

    def test_what_was_written_is_read(self, store: ObjectStore) -> None:
        """A value is read back whole at once, with the generation that put returned."""
        generation = store.put("a/b", b"value")
        blob = store.get("a/b")
        assert (blob.data, blob.generation) == (b"value", generation)
        info = store.head("a/b")
        assert (info.key, info.size_bytes, info.generation) == ("a/b", 5, generation)
        assert abs(datetime.now(UTC) - info.updated_at) < timedelta(minutes=10)

    @pytest.mark.parametrize("size", [0, 1, 1 << 20, (17 << 20) + 1])
    def test_any_size(self, store: ObjectStore, size: int) -> None:
        """Empty values and those of many MiB come back as they were."""
        data = os.urandom(size)
        store.put("big", data)
        assert store.get("big").data == data
        assert store.head("big").size_bytes == size

    def test_ranges(self, store: ObjectStore) -> None:
        """Ranges are cut at the end, count from the end when negative, and may be empty."""
        store.put("r", b"0123456789")
        assert store.get("r", start=2, length=3).data == b"234"
        assert store.get("r", start=8, length=9).data == b"89"
        assert store.get("r", start=7).data == b"789"
        assert store.get("r", start=-3).data == b"789"
        assert store.get("r", start=-3, length=2).data == b"78"
        assert store.get("r", start=-99).data == b"0123456789"
        assert store.get("r", start=10).data == b""
        assert store.get("r", start=99, length=5).data == b""
        assert store.get("r", start=3, length=0).data == b""

    def test_what_is_not_there(self, store: ObjectStore) -> None:
        """Reading nothing is ObjectNotFoundError; deleting nothing is no error."""
        for call in (store.get, store.head):
            with pytest.raises(ObjectNotFoundError):
                call("no/such")
        with pytest.raises(ObjectNotFoundError):
            store.get("no/such", start=1, length=1)
        store.delete("no/such")

    def test_delete(self, store: ObjectStore) -> None:
        """A deleted object is gone for every call, and may be created again."""
        store.put("d/x", b"1")
        store.delete("d/x")
        with pytest.raises(ObjectNotFoundError):
            store.get("d/x")
        assert list(store.list("")) == []
        store.put("d/x", b"2", if_generation=ABSENT)
        assert store.get("d/x").data == b"2"

    def test_conditional_create(self, store: ObjectStore) -> None:
        """With ABSENT an existing value is never touched."""
        store.put("c", b"1", if_generation=ABSENT)
        with pytest.raises(PreconditionFailedError):
            store.put("c", b"2", if_generation=ABSENT)
        assert store.get("c").data == b"1"

    def test_conditional_replace(self, store: ObjectStore) -> None:
        """A value is replaced only at the generation asked for; each new value has a new one."""
        first = store.put("c", b"1")
        second = store.put("c", b"2", if_generation=first)
        assert second != first
        with pytest.raises(PreconditionFailedError):
            store.put("c", b"3", if_generation=first)
        assert store.get("c").generation == second

    def test_equal_values_have_generations_of_their_own(self, store: ObjectStore) -> None:
        """Writing the same bytes again is a new generation: who saw the former is told."""
        first = store.put("c", b"1")
        second = store.put("c", b"1", if_generation=first)
        assert second != first
        with pytest.raises(PreconditionFailedError):
            store.put("c", b"1", if_generation=first)

    def test_conditional_replace_of_nothing(self, store: ObjectStore) -> None:
        """A generation of an object that was deleted is not the current one."""
        gone = store.put("c", b"1")
        store.delete("c")
        with pytest.raises(PreconditionFailedError):
            store.put("c", b"2", if_generation=gone)
        assert list(store.list("c")) == []

    def test_conditional_delete(self, store: ObjectStore) -> None:
        """An object is deleted only at the generation asked for; repeating that is no error."""
        old = store.put("c", b"1")
        new = store.put("c", b"2")
        with pytest.raises(PreconditionFailedError):
            store.delete("c", if_generation=old)
        assert store.get("c").data == b"2"
        store.delete("c", if_generation=new)
        store.delete("c", if_generation=new)
        with pytest.raises(ObjectNotFoundError):
            store.head("c")

    def test_one_of_many_creates(self, store: ObjectStore) -> None:
        """Of 32 racing creators exactly one wins, and its value is the one that is read."""
        assert self._race(store, ABSENT)[0] == store.get("race/c").data

    def test_one_of_many_replaces(self, store: ObjectStore) -> None:
        """Of 32 racing writers at one generation exactly one wins."""
        assert self._race(store, store.put("race/c", b"old"))[0] == store.get("race/c").data

    def _race(self, store: ObjectStore, generation: str) -> list[bytes]:
        barrier = threading.Barrier(self.racers)

        def one(number: int) -> bytes | None:
            value = b"%d" % number
            barrier.wait(30)
            try:
                store.put("race/c", value, if_generation=generation)
            except PreconditionFailedError:
                return None
            return value

        with ThreadPoolExecutor(self.racers) as pool:
            won = [value for value in pool.map(one, range(self.racers)) if value is not None]
        assert len(won) == 1
        return won

    def test_lists(self, store: ObjectStore) -> None:
        """A listing has every key of the prefix, whatever its slashes, in the order of bytes."""
        keys = ["a", "a-b", "a/b", "a/b/c", "a/bc", "a0", "b/a", "é/x", "한/x"]
        for key in reversed(keys):
            store.put(key, b"x")
        for prefix in ("", "a", "a/", "a/b", "b/", "zz", "/", "é", "a/b/c"):
            found = [info.key for info in store.list(prefix)]
            assert found == sorted((k for k in keys if k.startswith(prefix)), key=str.encode)

    def test_long_lists(self, store: ObjectStore) -> None:
        """More keys than any service gives in one answer come exactly once, in order."""
        keys = [f"p/{number:04}" for number in range(1100)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.put(key, b""), keys))
        assert [info.key for info in store.list("p/")] == keys

    def test_odd_keys(self, store: ObjectStore) -> None:
        """Every key of the grammar is kept apart from every other and listed as it was given."""
        for key in ODD_KEYS:
            store.put(key, key.encode())
        assert [store.get(key).data.decode() for key in ODD_KEYS] == list(ODD_KEYS)
        assert {info.key for info in store.list("")} == set(ODD_KEYS)
        for key in ODD_KEYS:
            store.delete(key)
        assert list(store.list("")) == []

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_bad_keys(self, store: ObjectStore, key: str) -> None:
        """A key outside the grammar is refused by every call."""
        for call in (lambda: store.put(key, b""), lambda: store.get(key), lambda: store.head(key)):
            with pytest.raises(InvalidKeyError):
                call()
        with pytest.raises(InvalidKeyError):
            store.delete(key)

    def test_writers_and_deleters_do_not_meet(self, store: ObjectStore) -> None:
        """A put succeeds while its neighbours, and with them their directory, are deleted."""

        def one(number: int) -> None:
            for turn in range(12):
                key = f"deep/er/{number}"
                store.put(key, b"%d" % turn)
                assert store.get(key).data == b"%d" % turn
                store.delete(key)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(8)))
        assert list(store.list("deep/")) == []
