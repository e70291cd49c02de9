"""Who waits for a project whose files come back from the store is told how far that is."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.lifecycle.conftest import Life, begun, run
from tests.lifecycle.test_stops import real

from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.objects import Blob
from anyon.testing.worlds import until

LARGE = 500_000


class Turnstile(MemoryStore):
    """A store that gives one large piece, and no other until it is open."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__()
        self.__dict__ |= inner.__dict__
        self._first = threading.Semaphore(1)
        self._is_open = threading.Event()

    def get(self, key: str, **more: Any) -> Blob:
        """Give it, or wait."""
        found = super().get(key, **more)
        if len(found.data) > LARGE and not self._first.acquire(blocking=False):
            assert self._is_open.wait(60)
        return found

    def open(self) -> None:
        """Give whatever is asked for from now on."""
        self._is_open.set()


@asynccontextmanager
async def on(tmp_path: Path, kind: str) -> AsyncIterator[tuple[Life, Project]]:
    """Give a server over an engine, and a project."""
    if kind == "memory":
        async with begun(tmp_path) as life:
            yield life, await life.world.project()
    else:
        async with real(tmp_path, kind) as both:
            yield both


@pytest.mark.parametrize("engine", ["memory", "bubblewrap"])
async def test_a_wake_tells_how_much_is_back(tmp_path: Path, engine: str) -> None:
    """Nothing before it, a part while the store still gives the rest, and nothing after; looking changes nothing."""
    async with on(tmp_path, engine) as (life, project):
        services = life.world.services
        assert services.checkpoints is not None
        activities = services.checkpoints.activities
        for name in ("one", "two"):  # a pack each
            (Path(project.path) / name).write_bytes(os.urandom(2 * LARGE))
            assert services.archives is not None
            await services.archives.save(project, reason="asked")
        await services.goals.archive(LOCAL_ACTOR, project.id, is_forced=False)
        assert activities.wake(project.id) is None
        store = life.store.inner = Turnstile(life.store.inner)
        waking = asyncio.create_task(services.goals.start(LOCAL_ACTOR, project.id))

        async def is_in_part() -> bool:
            assert not waking.done(), "it was back before anything was told"
            return 0 < (activities.wake(project.id) or 0) < 100

        await until(is_in_part)
        store.open()
        await waking
        assert activities.wake(project.id) is None
        if engine != "memory":
            assert await run(life, project, "sh", "-c", "cat one two | wc -c") == b"2000000\n"


async def test_a_wake_without_a_restore_tells_nothing(life: Life) -> None:
    """A project that was only stopped has its files: there is no restore to wait for."""
    services = life.world.services
    project = await life.world.project()
    assert services.checkpoints is not None
    await services.goals.stop(LOCAL_ACTOR, project.id, is_forced=False)
    async with services.containers.awake(project, holder="worker", reason="test"):
        assert services.checkpoints.activities.wake(project.id) is None
