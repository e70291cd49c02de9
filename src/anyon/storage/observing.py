"""The wrapper that measures: how long each call to a store takes, what it moves, and what fails."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from anyon.domain.errors import AnyonError
from anyon.storage.objects import (
    Blob,
    ObjectInfo,
    ObjectNotFoundError,
    ObjectStore,
    PreconditionFailedError,
)
from anyon.telemetry.parts import StoreMetrics
from anyon.telemetry.traces import span

_ANSWERS = (ObjectNotFoundError, PreconditionFailedError)
"""These say something of the object, and that the store is well."""


class ObservedStore:
    """Keeps all promises of the store that it wraps, and tells *metrics* of each call.

    Put it right around a driver, below what tries again, so that each try is seen.
    """

    def __init__(self, store: ObjectStore, metrics: StoreMetrics) -> None:
        self._store = store
        self._metrics = metrics

    @contextmanager
    def _observed(self, operation: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            with span(f"store.{operation}"):
                yield
        except _ANSWERS:
            raise
        except AnyonError as error:
            self._metrics.failed(operation, error.code)
            raise
        finally:
            self._metrics.took(operation, time.perf_counter() - began)

    def put(self, key: str, data: bytes, *, if_generation: str | None = None) -> str:
        """See ``ObjectStore.put``."""
        with self._observed("put"):
            generation = self._store.put(key, data, if_generation=if_generation)
        self._metrics.moved("out", len(data))
        return generation

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> Blob:
        """See ``ObjectStore.get``."""
        with self._observed("get"):
            blob = self._store.get(key, start=start, length=length)
        self._metrics.moved("in", len(blob.data))
        return blob

    def head(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.head``."""
        with self._observed("head"):
            return self._store.head(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``; measured is the first answer, not the reader's time."""
        found = self._store.list(prefix)
        with self._observed("list"):
            first = next(found, None)
        if first is not None:
            yield first
            yield from found

    def delete(self, key: str, *, if_generation: str | None = None) -> None:
        """See ``ObjectStore.delete``."""
        with self._observed("delete"):
            self._store.delete(key, if_generation=if_generation)
