"""A store in memory: for tests, and the plainest reading of the interface."""

import itertools
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

from anyon.storage.objects import (
    ABSENT,
    Blob,
    ObjectInfo,
    ObjectNotFoundError,
    PreconditionFailedError,
    check_key,
    cut,
)


class MemoryStore:
    """Keeps the promises of ``ObjectStore`` except that nothing outlives the process."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, ObjectInfo]] = {}
        self._lock = threading.Lock()
        self._generations = itertools.count(1)

    def put(self, key: str, data: bytes, *, if_generation: str | None = None) -> str:
        """See ``ObjectStore.put``."""
        check_key(key)
        with self._lock:
            self._check(key, if_generation)
            info = ObjectInfo(key, len(data), str(next(self._generations)), datetime.now(UTC))
            self._objects[key] = (bytes(data), info)
            return info.generation

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> Blob:
        """See ``ObjectStore.get``."""
        data, info = self._one(key)
        return Blob(cut(data, start, length), info.generation)

    def head(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.head``."""
        return self._one(key)[1]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        with self._lock:
            found = [info for key, (_, info) in self._objects.items() if key.startswith(prefix)]
        yield from sorted(found, key=lambda info: info.key.encode())

    def delete(self, key: str, *, if_generation: str | None = None) -> None:
        """See ``ObjectStore.delete``."""
        check_key(key)
        with self._lock:
            if key in self._objects:
                self._check(key, if_generation)
            self._objects.pop(key, None)

    def _one(self, key: str) -> tuple[bytes, ObjectInfo]:
        check_key(key)
        with self._lock:
            if key not in self._objects:
                raise ObjectNotFoundError(f"there is no object {key}")
            return self._objects[key]

    def _check(self, key: str, wanted: str | None) -> None:
        current = self._objects[key][1].generation if key in self._objects else ABSENT
        if wanted is not None and wanted != current:
            raise PreconditionFailedError(f"{key} is not at the generation asked for")
