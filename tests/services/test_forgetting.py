"""A server that lives for years holds nothing of the tasks that are over and the projects that are gone."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from anyon.clock import SystemClock
from anyon.domain.actors import LOCAL_ACTOR
from anyon.engines.memory import MemoryEngine
from anyon.engines.pauses import PausingEngine
from anyon.lifecycle.caretaker import Caretaker
from anyon.locks import Locks
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.keys import PlainKeys
from anyon.storage.logs import Logs
from anyon.testing.memories import holders_of
from anyon.testing.worlds import World, living, until

BOUNDED = ("Spares", "LRUCache", "coroutine > Change")
"""What holds a fixed number of things of the past, which make room for what comes: answers to looks,
beliefs on branches, compiled queries with their first values, a listener's last notice."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server with a store, that forgets what is deleted at once."""
    home = tmp_path / "home"
    store = MemoryStore()
    engine = PausingEngine(MemoryEngine(hidden=[home]))
    checkpoints = Checkpoints(store, cache=home / "checkpoints", clock=SystemClock())
    parts = {
        "checkpoints": checkpoints,
        "logs": Logs(store, PlainKeys()),
        "saved_trees": ("workspace", "home"),
        "pause": engine.pause,
        "undo_window": timedelta(0),
    }
    async with living(home, engine=engine, **parts) as made:
        yield made
        await checkpoints.close()


def held(world: World, name: str, *more: object) -> list[str]:
    """Return who holds on to *name*, caches of a fixed size and the store left out."""
    gc.collect()
    others = asyncio.all_tasks() - {asyncio.current_task()}  # this one is the test's own
    ways = holders_of([world, *others, *more], name)
    return [way for way in ways if not any(word in way for word in (*BOUNDED, "MemoryStore"))]


async def settled(world: World, name: str) -> None:
    """Wait until nobody holds on to *name*, and say who does in the end."""

    async def is_forgotten() -> bool:
        await asyncio.sleep(0.1)
        return not held(world, name)

    with contextlib.suppress(TimeoutError):
        await until(is_forgotten)
    assert "\n".join(sorted(set(held(world, name)))) == ""


async def test_a_deleted_project_leaves_nothing_in_memory(world: World) -> None:
    """Made, worked in, saved, looked at, deleted and purged: no part of the server names it any more."""
    services = world.services
    caretaker = Caretaker(
        db=world.db,
        archives=services.archives,
        upkeep=services.checkpoints.upkeep,
        clock=SystemClock(),
        server_id=services.server_id,
        drill_hour=3,
        drill_projects=1,
    )
    project = await world.project()
    attempt = await world.attempt(project, "echo hello > file")
    await world.over(attempt)
    await services.archives.save(
        await services.projects.get(LOCAL_ACTOR, project.id), reason="asked"
    )
    await caretaker.collect()
    await services.statuses.of(LOCAL_ACTOR)
    await services.logs.tick()
    assert held(world, project.id), "nothing is seen of a project that is there"
    await services.projects.delete(LOCAL_ACTOR, project.id)
    await services.deletions.purge()
    await caretaker.collect()
    await services.logs.tick()
    await settled(world, project.id)
    assert held(world, project.id, caretaker) == []


async def test_a_task_that_is_over_leaves_nothing_in_memory(world: World) -> None:
    """Its attempt and its processes are in the database and on disk only."""
    project = await world.project()
    attempt = await world.attempt(project, "echo hello > file")
    processes = await world.over(attempt)
    await world.services.attempts.status(LOCAL_ACTOR, attempt.id)
    for name in (attempt.task_id, attempt.id, *(process.id for process in processes)):
        await world.services.logs.tick()
        await settled(world, name)


async def test_what_is_kept_is_seen(world: World) -> None:
    """One name that is kept anywhere below the server is found, in a list of numbers' company or a closure."""
    planted = ["kept-in-a-list"]
    name = "kept-in-a-closure"
    world.services.feed.planted = {1: (planted, lambda: name)}  # type: ignore[attr-defined] # planted
    assert len(held(world, "kept-in-a-list")) == 1
    assert len(held(world, "kept-in-a-closure")) == 1
    assert held(world, "kept-nowhere") == []


async def test_locks_are_one_for_all_and_none_for_nobody() -> None:
    """Who asks while a lock is held or waited for gets that one; then it is gone."""
    locks = Locks[str]()
    entered = []

    async def enter(name: str) -> None:
        async with locks.of("a"):
            entered.append(name)
            await asyncio.sleep(0)
            assert entered[-1] == name

    async with locks.of("a"):
        waiting = [asyncio.create_task(enter(name)) for name in "xyz"]
        await asyncio.sleep(0)
        assert len(locks) == 1
        assert entered == []
    await asyncio.gather(*waiting)
    waiting.clear()
    gc.collect()
    assert entered == ["x", "y", "z"]
    assert len(locks) == 0
