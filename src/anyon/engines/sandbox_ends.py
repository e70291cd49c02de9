"""How a sandbox ends, and what it used: by its first process, whoever started it."""

import asyncio
import signal
import time
from datetime import timedelta

from anyon.clock import Clock
from anyon.domain.errors import EngineFailedError
from anyon.engines.engine import Stats
from anyon.engines.sandbox_processes import Identity, lives, members, programs, send

TERMINATED = 128 + signal.SIGTERM
KILLED = 128 + signal.SIGKILL
_POLL = timedelta(milliseconds=10)


async def end(first: Identity, grace: timedelta, clock: Clock) -> int:
    """Send TERM to every program, wait *grace*, kill the rest; return the sandbox's exit code."""
    clean = await _terminate(first, grace, clock)
    await asyncio.to_thread(kill, first)
    return TERMINATED if clean else KILLED


async def _terminate(first: Identity, grace: timedelta, clock: Clock) -> bool:
    """Say whether all programs were gone within *grace*."""
    deadline = clock.monotonic() + grace.total_seconds()
    found = await asyncio.to_thread(programs, first)
    if grace:
        send(signal.SIGTERM, [item.pid for item in found])
    while found and clock.monotonic() < deadline:
        await clock.sleep(_POLL)
        found = await asyncio.to_thread(programs, first)
    return not found


def kill(first: Identity, *, patience: float = 20.0) -> None:
    """Kill a sandbox with everything in it, and return when it is gone."""
    deadline = time.monotonic() + patience
    while lives(first):
        send(signal.SIGKILL, [first.pid])
        if time.monotonic() > deadline:
            raise EngineFailedError(
                f"the sandbox's first process {first.pid} does not end",
                code="stop_failed",
                hint="A process may be stuck in the kernel (state D); try again.",
            )
        time.sleep(0.002)


class Meter:
    """Numbers out of the process table, for sandboxes without a control group.

    The CPU time of processes that ended is not in it: the most that was seen is kept, so that
    it only grows.
    """

    def __init__(self) -> None:
        self._most: dict[Identity, float] = {}

    def measure(self, first: Identity) -> Stats:
        """Return what the sandbox uses now."""
        found = members(first)
        cpu = max(sum(item.cpu_seconds for item in found), self._most.get(first, 0.0))
        self._most[first] = cpu
        return Stats(
            cpu_seconds=cpu,
            memory_bytes=sum(item.memory_bytes for item in found),
            pids=len(found),
        )

    def forget(self, first: Identity) -> None:
        """Drop what is kept of a sandbox that ended."""
        self._most.pop(first, None)
