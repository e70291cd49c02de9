"""Traffic that holds a project awake while it flows, and not a moment longer than is set."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

from anyon.clock import Clock
from anyon.domain.entities import Lease
from anyon.services.supervisors import Supervisor

Hold = AbstractAsyncContextManager[Lease]


class Traffic:
    """A lease while something was carried in the last *awake_for*, shared by all who carry.

    An open connection on which nothing is said is no traffic. *new_hold* wakes the project and
    holds it; it is entered once, however many ask.
    """

    def __init__(
        self,
        *,
        new_hold: Callable[[], Hold],
        clock: Clock,
        supervisor: Supervisor,
        awake_for: timedelta,
        name: str,
    ) -> None:
        self._new_hold = new_hold
        self._clock = clock
        self._supervisor = supervisor
        self._awake_for = awake_for.total_seconds()
        self._name = name
        self._held: Hold | None = None
        self._changing = asyncio.Lock()
        self._seen_at: float | None = None
        self.inside = 0
        """How many carry something now, or have a connection open."""

    @property
    def is_held(self) -> bool:
        """Whether the project is held awake by this."""
        return self._held is not None

    @asynccontextmanager
    async def within(self) -> AsyncIterator[None]:
        """Be counted inside the block; a hold that nothing was carried under ends with the last one."""
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
            if not self.inside and self._seen_at is None:
                await asyncio.shield(self.let_go())

    async def need(self) -> None:
        """Hold the project awake, waking it if need be. Raises as *new_hold* does; then nothing is held."""
        if self._held is not None:
            return
        async with self._changing:
            if self._held is None:
                hold = self._new_hold()
                await hold.__aenter__()
                self._held, self._seen_at = hold, None

    def saw(self) -> None:
        """Say that something was carried just now."""
        is_first = self._seen_at is None
        self._seen_at = self._clock.monotonic()
        if is_first and self._held is not None:
            self._supervisor.spawn(self._watch(self._held), name=f"watch over {self._name}")

    async def let_go(self) -> None:
        """End the hold, if there is one."""
        async with self._changing:
            await self._end()

    async def _end(self) -> None:
        hold, self._held, self._seen_at = self._held, None, None
        if hold is not None:
            await hold.__aexit__(None, None, None)

    async def _watch(self, hold: Hold) -> None:
        """End *hold* once nothing was carried for long enough."""
        while self._held is hold and self._seen_at is not None:
            left = self._seen_at + self._awake_for - self._clock.monotonic()
            if left > 0:
                await self._clock.sleep(timedelta(seconds=left))
                continue
            async with self._changing:
                # Carried while this waited for its turn: the lease is wanted on.
                if self._held is hold and self._is_silent():
                    await self._end()

    def _is_silent(self) -> bool:
        seen = self._seen_at
        return seen is None or seen + self._awake_for <= self._clock.monotonic()
