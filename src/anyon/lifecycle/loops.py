"""A loop is a tick and a wait; a run group is the loops of one server. Tests call the tick."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from anyon.clock import Clock

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Something done again and again: *tick*, then a wait of *interval*, or until it is woken."""

    name: str
    interval: timedelta
    tick: Callable[[], Awaitable[None]]


async def run(loops: Sequence[Loop], clock: Clock) -> None:
    """Run all *loops* until cancelled; each goes on after a failed tick, which is logged.

    A loop that stopped at its first error would leave every project as it is for ever; so a
    failure costs one round. A tick that was begun is let finish on cancellation by its own
    shields, not here.
    """
    async with asyncio.TaskGroup() as group:
        for loop in loops:
            group.create_task(_go_round(loop, clock), name=f"loop-{loop.name}")


async def _go_round(loop: Loop, clock: Clock) -> None:
    while True:
        try:
            await loop.tick()
        except Exception:
            log.exception("loop.tick_failed", loop=loop.name)
        await clock.sleep(loop.interval)
