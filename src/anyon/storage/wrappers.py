"""What cuts across drivers: each wrapper is an ``ObjectStore`` around another."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeVar

from anyon.storage.objects import (
    Blob,
    ObjectInfo,
    ObjectNotFoundError,
    ObjectStore,
    PreconditionFailedError,
    StoreUnavailableError,
)

T = TypeVar("T")


class RetryingStore:
    """Tries again what may be repeated, with growing pauses, until *patience* is used up.

    A conditional write whose answer was lost is looked up: if the object now holds exactly
    our bytes, it was our write (values that are written under a condition differ per writer).
    An unconditional write is repeated as it is. A listing is resumed behind its last key.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        patience: timedelta = timedelta(seconds=60),
        first_pause: timedelta = timedelta(milliseconds=100),
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._patience = patience.total_seconds()
        self._first = first_pause.total_seconds()
        self._sleep = sleep
        self._monotonic = monotonic

    def put(self, key: str, data: bytes, *, if_generation: str | None = None) -> str:
        """See ``ObjectStore.put``."""
        lost = False

        def attempt() -> str:
            nonlocal lost
            try:
                return self._store.put(key, data, if_generation=if_generation)
            except StoreUnavailableError:
                lost = True
                raise
            except PreconditionFailedError:
                blob = self._ours(key, data) if lost else None
                if blob is None:
                    raise
                return blob.generation

        return self._retried(attempt)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> Blob:
        """See ``ObjectStore.get``."""
        return self._retried(lambda: self._store.get(key, start=start, length=length))

    def head(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.head``."""
        return self._retried(lambda: self._store.head(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        last: bytes | None = None
        pauses = self._pauses()
        while True:
            try:
                for info in self._store.list(prefix):
                    if last is None or info.key.encode() > last:
                        last = info.key.encode()
                        pauses = self._pauses()
                        yield info
            except StoreUnavailableError:
                if not next(pauses, False):
                    raise
            else:
                return

    def delete(self, key: str, *, if_generation: str | None = None) -> None:
        """See ``ObjectStore.delete``."""
        self._retried(lambda: self._store.delete(key, if_generation=if_generation))

    def _ours(self, key: str, data: bytes) -> Blob | None:
        try:
            blob = self._store.get(key)
        except ObjectNotFoundError:
            return None
        return blob if blob.data == data else None

    def _retried(self, attempt: Callable[[], T]) -> T:
        pauses = self._pauses()
        while True:
            try:
                return attempt()
            except StoreUnavailableError:
                if not next(pauses, False):
                    raise

    def _pauses(self) -> Iterator[bool]:
        """Sleep and yield True at each step, for as long as the patience lasts."""
        end = self._monotonic() + self._patience
        pause = self._first
        while (left := end - self._monotonic()) > 0:
            # Full jitter: callers that failed together do not come back together.
            self._sleep(min(left, pause * (0.5 + random.random() / 2)))  # noqa: S311 - no secret
            pause = min(pause * 2, 8.0)
            yield True


class LimitedStore:
    """Lets at most *calls* calls through at once; the others wait their turn."""

    def __init__(self, store: ObjectStore, *, calls: int) -> None:
        self._store = store
        self._turns = threading.BoundedSemaphore(calls)

    def put(self, key: str, data: bytes, *, if_generation: str | None = None) -> str:
        """See ``ObjectStore.put``."""
        with self._turns:
            return self._store.put(key, data, if_generation=if_generation)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> Blob:
        """See ``ObjectStore.get``."""
        with self._turns:
            return self._store.get(key, start=start, length=length)

    def head(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.head``."""
        with self._turns:
            return self._store.head(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``; a turn is held for the first answer only, not for the reader's time."""
        found = self._store.list(prefix)
        with self._turns:
            first = next(found, None)
        if first is not None:
            yield first
            yield from found

    def delete(self, key: str, *, if_generation: str | None = None) -> None:
        """See ``ObjectStore.delete``."""
        with self._turns:
            self._store.delete(key, if_generation=if_generation)


class ThrottledStore:
    """Lets writes through at no more than so many bytes a second, first come, first served.

    Objects of up to ``SMALL_BYTES`` (heads, claims, records) count, and never wait: a project's
    head must not stand in line behind another's gigabytes. Reading is not limited.
    """

    SMALL_BYTES = 64 << 10

    def __init__(
        self,
        store: ObjectStore,
        *,
        bytes_per_second: int,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._rate = bytes_per_second
        self._sleep = sleep
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._free_at = float("-inf")

    def put(self, key: str, data: bytes, *, if_generation: str | None = None) -> str:
        """See ``ObjectStore.put``; waits its turn first."""
        with self._lock:
            now = self._monotonic()
            begins = max(now, self._free_at)
            self._free_at = begins + len(data) / self._rate
        if begins > now and len(data) > self.SMALL_BYTES:
            self._sleep(begins - now)
        return self._store.put(key, data, if_generation=if_generation)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> Blob:
        """See ``ObjectStore.get``."""
        return self._store.get(key, start=start, length=length)

    def head(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.head``."""
        return self._store.head(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        return self._store.list(prefix)

    def delete(self, key: str, *, if_generation: str | None = None) -> None:
        """See ``ObjectStore.delete``."""
        self._store.delete(key, if_generation=if_generation)
