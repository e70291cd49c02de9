"""Looks into a repository: answered from memory while the project sleeps, since nothing changes then.

A page that stays open asks again every few seconds; that must neither wake a project nor keep it
from its sleep. What was seen after the last activity still holds for as long as nothing runs.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from anyon.clock import Clock
from anyon.domain.entities import Project
from anyon.services.containers import Containers

T = TypeVar("T")
COUNT = 1000
"""How many answers are remembered."""


@dataclass(frozen=True, slots=True)
class _Seen(Generic[T]):
    answer: T
    at: datetime


class Looks(Generic[T]):
    """Remembers the last answer to each question; *is_small* says which are worth their memory."""

    def __init__(
        self,
        containers: Containers,
        clock: Clock,
        *,
        is_small: Callable[[T], bool] = lambda _: True,
        count: int = COUNT,
    ) -> None:
        self._containers = containers
        self._clock = clock
        self._is_small = is_small
        self._count = count
        self._seen: OrderedDict[str, _Seen[T]] = OrderedDict()

    async def look(self, project: Project, key: str, see: Callable[[], Awaitable[T]]) -> T:
        """Return what ``see()`` returns with the container RUNNING, or what it returned last if that still holds."""
        seen = self._seen.get(key)
        holds = seen is not None and seen.at >= project.last_active_at
        if seen is not None and holds and not await self._containers.is_running(project.id):
            return seen.answer
        async with self._containers.look(project):
            at = self._clock.now()
            answer = await see()
        self._seen.pop(key, None)
        if self._is_small(answer):
            self._seen[key] = _Seen(answer, at)
            while len(self._seen) > self._count:
                self._seen.popitem(last=False)
        return answer
