"""Stores that fail on purpose: around any store, before or after a call's effect."""

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from anyon.storage.objects import Blob, ObjectInfo, ObjectStore, StoreUnavailableError

T = TypeVar("T")


class FaultyStore:
    """Asks *fails* before and after each call; a True is a StoreUnavailableError there.

    ``fails(number, name, after)``: *number* counts the calls from 1, *name* is the method.
    """

    def __init__(self, store: ObjectStore, fails: Callable[[int, str, bool], bool]) -> None:
        self._store = store
        self._fails = fails
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self.calls = 0

    def put(self, key: str, data: bytes, *, if_generation: str | None = None) -> str:
        """See ``ObjectStore.put``."""
        return self._call("put", lambda: self._store.put(key, data, if_generation=if_generation))

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> Blob:
        """See ``ObjectStore.get``."""
        return self._call("get", lambda: self._store.get(key, start=start, length=length))

    def head(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.head``."""
        return self._call("head", lambda: self._store.head(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        yield from self._call("list", lambda: list(self._store.list(prefix)))

    def delete(self, key: str, *, if_generation: str | None = None) -> None:
        """See ``ObjectStore.delete``."""
        self._call("delete", lambda: self._store.delete(key, if_generation=if_generation))

    def _call(self, name: str, call: Callable[[], T]) -> T:
        with self._lock:
            number = next(self._numbers)
            self.calls = number
        if self._fails(number, name, False):
            raise StoreUnavailableError(f"call {number} ({name}) failed before its effect")
        result = call()
        if self._fails(number, name, True):
            raise StoreUnavailableError(f"call {number} ({name}) failed after its effect")
        return result


class FailsAtN(FaultyStore):
    """Fails from the *n*-th call on (as a store that went away), or at that call only."""

    def __init__(
        self, store: ObjectStore, n: int, *, after: bool = False, lasting: bool = True
    ) -> None:
        super().__init__(
            store,
            lambda number, _, is_after: (
                (number == n and is_after is after) or (lasting and number > n)
            ),
        )


class UnsteadyStore(FaultyStore):
    """Fails one call of *one_of*, at random but always alike for one seed."""

    def __init__(self, store: ObjectStore, *, seed: int, one_of: int = 3) -> None:
        source = random.Random(seed)  # noqa: S311 - a repeatable fault, no secret
        super().__init__(store, lambda *_: source.random() < 0.5 / one_of)
