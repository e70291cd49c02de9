"""Limits on waking: how often in an hour, and how many containers at once, with a fair line before it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import structlog

from anyon.clock import Clock
from anyon.domain.capacity import Capacity
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError, NotFoundError, OverLimitError
from anyon.domain.ids import ProjectId, UserId
from anyon.domain.lines import Waiter, fair_order
from anyon.engines.engine import ContainerState, Engine
from anyon.services.supervisors import Supervisor

log = structlog.get_logger(__name__)

PATIENCE = timedelta(seconds=60)
_LOOK_AGAIN = timedelta(seconds=1)
_HOUR = 3600.0


class WakeBudget:
    """Counts a project's wakes of the last hour; 0 is no limit. A new life of the server counts anew."""

    def __init__(self, per_hour: int, clock: Clock) -> None:
        self._per_hour = per_hour
        self._clock = clock
        self._wakes: dict[ProjectId, deque[float]] = {}

    def spend(self, project_id: ProjectId) -> None:
        """Count a wake, or raise OverLimitError ``wake_budget``."""
        if not self._per_hour:
            return
        now = self._clock.monotonic()
        wakes = self._wakes.setdefault(project_id, deque())
        while wakes and wakes[0] <= now - _HOUR:
            wakes.popleft()
        if len(wakes) >= self._per_hour:
            minutes = int((wakes[0] + _HOUR - now) / 60) + 1
            raise OverLimitError(
                f"the project was woken {self._per_hour} times in the last hour",
                code="wake_budget",
                hint=f"It can be woken again in {minutes} minutes; "
                "`anyon project events` shows what woke it, a hold keeps it awake.",
            )
        wakes.append(now)

    def forget(self, project_id: ProjectId) -> None:
        """Forget a project that was deleted."""
        self._wakes.pop(project_id, None)


@dataclass(slots=True, eq=False)
class _Waiting:
    waiter: Waiter
    since: float
    place: asyncio.Future[None]


class Places:
    """Gives out the places of running containers, frozen ones included, as far as *capacity* goes.

    Who finds none waits in a line that is fair between users, for *patience* at most. Meanwhile
    *make_room* (see ``room_made_by``) is asked to stop a project that nobody needs.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        clock: Clock,
        supervisor: Supervisor,
        capacity: Capacity,
        patience: timedelta = PATIENCE,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._supervisor = supervisor
        self._capacity = capacity
        self._lacking = "max_running"
        self._patience = patience.total_seconds()
        self._line: list[_Waiting] = []
        self._starting: set[ProjectId] = set()
        self._served: dict[UserId, int] = {}
        self._turn = 0
        self._is_serving = False
        self._make_room: Callable[[], Awaitable[bool]] | None = None

    def room_made_by(self, make_room: Callable[[], Awaitable[bool]]) -> None:
        """Ask *make_room* when all places are taken; it says whether it stopped a project."""
        self._make_room = make_room

    @property
    def waiting(self) -> int:
        """How many wakes wait in the line."""
        return len(self._line)

    def position(self, project_id: ProjectId) -> int | None:
        """Return a waiting project's position in the line, 1 is next; None if it does not wait."""
        if not self._line:
            return None
        order = fair_order([one.waiter for one in self._line], self._served)
        found = [n for n, one in enumerate(order, 1) if one.project_id == project_id]
        return found[0] if found else None

    @asynccontextmanager
    async def taken(self, project: Project) -> AsyncIterator[None]:
        """Bring the container up inside the block; OverLimitError ``no_capacity`` after the patience."""
        if not self._capacity.is_limited:
            yield
            return
        await self._wait(project)
        try:
            yield
        finally:
            self._starting.discard(project.id)  # from here on the engine's list says it

    async def _wait(self, project: Project) -> None:
        place = asyncio.get_running_loop().create_future()
        waiter = Waiter(project_id=project.id, user_id=project.user_id)
        one = _Waiting(waiter=waiter, since=self._clock.monotonic(), place=place)
        self._line.append(one)
        self._serve()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._starting.discard(project.id)
            raise
        finally:
            if one in self._line:
                self._line.remove(one)

    def _serve(self) -> None:
        if not self._is_serving:
            self._is_serving = True
            self._supervisor.spawn(self._serving(), name="line for places")

    async def _serving(self) -> None:
        try:
            while self._line:
                try:
                    served = await self._round()
                except AnyonError as error:  # nobody can know what is free: all are told so
                    for one in self._line:
                        _tell(one, error)
                    self._line.clear()
                    return
                if self._line and not served:
                    await self._clock.sleep(_LOOK_AGAIN)
        finally:
            self._is_serving = False

    async def _round(self) -> bool:
        """Give away what is free and refuse who has waited too long; say whether to go on at once."""
        up = await self._up()
        by_waiter = {one.waiter: one for one in self._line}
        for waiter in fair_order([one.waiter for one in self._line], self._served):
            starting = frozenset(self._starting)
            lacking = self._capacity.lacks(up, starting, waiter.project_id)
            if lacking is None:
                self._give(by_waiter[waiter])
            else:
                self._lacking = lacking
        self._refuse_late()
        if not self._line or self._make_room is None:
            return False
        return await self._make_room()

    async def _up(self) -> Mapping[ProjectId, int]:
        """Return what runs or is frozen, and the bytes that each uses where that counts."""
        found = {
            info.project: 0
            for info in await self._engine.list()
            if info.state in {ContainerState.RUNNING, ContainerState.FROZEN}
        }
        if self._capacity.is_measured:
            for project in found:
                with suppress(NotFoundError):  # removed since
                    stats = await self._engine.stats(project)
                    found[project] = stats.memory_bytes if stats else 0
        return found

    def _give(self, one: _Waiting) -> None:
        self._line.remove(one)
        if one.place.done():  # its caller has gone
            return
        self._starting.add(one.waiter.project_id)
        self._turn += 1
        self._served[one.waiter.user_id] = self._turn
        one.place.set_result(None)

    def _refuse_late(self) -> None:
        now = self._clock.monotonic()
        for one in [one for one in self._line if now - one.since >= self._patience]:
            self._line.remove(one)
            refusal = OverLimitError(
                f"there is no room for another running container ({self._lacking})",
                code="no_capacity",
                hint="Try again later; stop what is not needed, "
                f"or let {self._lacking} be greater.",
            )
            _tell(one, refusal)


def _tell(one: _Waiting, error: AnyonError) -> None:
    if not one.place.done():
        one.place.set_exception(error)
