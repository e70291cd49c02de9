"""Locks by a name, none of which outlives its use: a server that lives for years forgets who is gone."""

import asyncio
import weakref
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Locks(Generic[K]):
    """One lock for each key, the same for all who ask while anybody holds it or waits for it."""

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[K, asyncio.Lock] = weakref.WeakValueDictionary()

    def of(self, key: K) -> asyncio.Lock:
        """Return the key's lock; nothing of it stays once its last user has let it go."""
        return self._known.setdefault(key, asyncio.Lock())

    def __len__(self) -> int:
        return len(self._known)
