"""Waits that have an end, and what is said when it comes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from anyon.domain.entities import Project
from anyon.domain.errors import ConflictError, DeadlineExceededError


@asynccontextmanager
async def start_within(deadline: timedelta, project: Project) -> AsyncIterator[None]:
    """End the block after *deadline*: DeadlineExceededError ``start_deadline``."""
    try:
        async with asyncio.timeout(deadline.total_seconds()):
            yield
    except TimeoutError as error:
        raise DeadlineExceededError(
            f"the container of {project.name!r} did not start in {deadline}",
            code="start_deadline",
            hint="Look at the engine (`anyon doctor`); trying again is safe.",
        ) from error


@asynccontextmanager
async def having(lock: asyncio.Lock, patience: timedelta) -> AsyncIterator[None]:
    """Hold a project's lock inside the block; ConflictError ``project_in_hand`` if it is not free in time."""
    try:
        async with asyncio.timeout(patience.total_seconds()):
            await lock.acquire()
    except TimeoutError as error:
        raise in_hand() from error
    try:
        yield
    finally:
        lock.release()


def in_hand() -> ConflictError:
    """Return the refusal of what cannot wait for who is at a project just now."""
    return ConflictError(
        "the project is just being started, saved, restored or looked at",
        code="project_in_hand",
        hint="Try again when that is over; `anyon project why` shows its phase.",
    )
