"""The loop that stops sleeping projects when the machine's memory runs short."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from anyon.domain.capacity import MemoryState, Thresholds, pressure
from anyon.domain.ids import ProjectId

log = structlog.get_logger(__name__)


class Relief(Protocol):
    """What can free memory."""

    async def relieve(self, detail: str) -> ProjectId | None:
        """Stop one project that nobody needs, and return it; None if there is none."""
        ...


class MemoryPressure:
    """Looks at memory, and has one project stopped at each tick for as long as it is short.

    One at a time: what a stop frees shows in the next look only, and a project that need not have
    gone is a wake that somebody waits for.
    """

    def __init__(
        self, *, relief: Relief, read: Callable[[], MemoryState], thresholds: Thresholds
    ) -> None:
        self._relief = relief
        self._read = read
        self._thresholds = thresholds

    async def tick(self) -> None:
        """Look once."""
        short = pressure(self._read(), self._thresholds)
        if short is None:
            return
        stopped = await self._relief.relieve(short)
        log.warning("memory.short", detail=short, stopped=stopped)


def read_memory(proc: Path = Path("/proc")) -> MemoryState:
    """Return what the kernel says of memory now; a kernel without pressure tells no stalls."""
    return MemoryState(
        stalled_percent=_stalled(proc / "pressure" / "memory"),
        available_bytes=_available(proc / "meminfo"),
    )


def _stalled(path: Path) -> float | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:  # no such file, or pressure is switched off (EOPNOTSUPP)
        return None
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "some":
            values = dict(item.split("=", 1) for item in rest.split() if "=" in item)
            return float(values["avg10"]) if "avg10" in values else None
    return None


def _available(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None
