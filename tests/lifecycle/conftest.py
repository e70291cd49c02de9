"""A server whose time, store and reconciler the test owns."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from anyon.db import projects as project_rows
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.domain.life import Tiers
from anyon.domain.states import Phase
from anyon.engines.engine import ContainerState
from anyon.lifecycle.reconciler import Reconciler
from anyon.services.checkpoints import ProjectCheckpoints
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.objects import StoreUnavailableError
from anyon.testing.clocks import FakeClock
from anyon.testing.worlds import World, living, until


class Store:
    """A real store that a test can take away."""

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.is_away = False

    def __getattr__(self, name: str) -> Any:
        """Answer as the store does, or refuse as one that does not answer."""
        if self.is_away:
            raise StoreUnavailableError("the store does not answer")
        return getattr(self.inner, name)


@dataclass
class Life:
    """A server with its reconciler, and a clock of the test's."""

    world: World
    clock: FakeClock
    store: Store
    reconciler: Reconciler

    async def pass_time(self, length: timedelta) -> None:
        """Let time pass and the reconciler look once."""
        await self.clock.advance(length)
        await self.reconciler.tick()

    async def phase(self, project: Project) -> Phase:
        """Return the recorded phase."""
        found = await self.world.db.read(project_rows.find, project.id)
        assert found is not None
        return found.phase

    async def state(self, project: Project) -> ContainerState | None:
        """Return what the engine says."""
        info = await self.world.engine.inspect(project.id)
        return info.state if info else None


@pytest.fixture
async def life(tmp_path: Path) -> AsyncIterator[Life]:
    """A server whose time the test owns."""
    async with begun(tmp_path) as life:
        yield life


@asynccontextmanager
async def begun(tmp_path: Path, tiers: Tiers | None = None, **changes: Any) -> AsyncIterator[Life]:
    """Give a server whose time the test owns; *changes* replace some of its parts."""
    clock, store, tiers = FakeClock(), Store(), tiers or Tiers()
    checkpoints = Checkpoints(store, cache=tmp_path / "cache", clock=clock)
    parts = {"clock": clock, "checkpoints": checkpoints, "tiers": tiers} | changes
    async with living(tmp_path / "home", **parts) as world:
        steps = world.services.steps
        world.services.places.room_made_by(steps.make_room)
        reconciler = Reconciler(
            db=world.db,
            engine=world.engine,
            steps=steps,
            leases=world.services.leases,
            clock=clock,
            tiers=tiers,
        )
        yield Life(world, clock, store, reconciler)
    await checkpoints.close()


def checkpoints_of(life: Life) -> ProjectCheckpoints:
    """Return the use cases on checkpoints."""
    found = life.world.services.checkpoints
    assert found is not None
    return found


async def is_free(life: Life, project: Project) -> bool:
    """Say whether nothing holds the project awake."""
    return not await life.world.services.leases.of(project.id)


async def run(life: Life, project: Project, *argv: str) -> bytes:
    """Run a command in the project and return what it printed."""
    process = await life.world.services.processes.exec(LOCAL_ACTOR, project.id, argv)
    printed = await life.world.printed(process)
    await until(lambda: is_free(life, project))  # its lease goes a moment after its end is told
    return printed
