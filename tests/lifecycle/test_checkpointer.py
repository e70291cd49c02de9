"""Projects in which something happens are saved at intervals; others cost nothing."""

from datetime import timedelta
from pathlib import Path

import pytest

from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.domain.states import Phase
from anyon.lifecycle.checkpointer import Checkpointer
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.testing.clocks import FakeClock
from anyon.testing.worlds import World, living


async def count(world: World, project: Project) -> int:
    """Return how many checkpoints the project has."""
    assert world.services.checkpoints is not None
    return len(await world.services.checkpoints.history.list(LOCAL_ACTOR, project.id))


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.FROZEN])
async def test_only_what_changed_is_saved(tmp_path: Path, phase: Phase) -> None:
    """Activity since the last save brings one checkpoint, in a frozen project too; idleness none."""
    clock = FakeClock()
    checkpoints = Checkpoints(MemoryStore(), cache=tmp_path / "cache", clock=clock)
    async with living(tmp_path / "home", clock=clock, checkpoints=checkpoints) as world:
        archives = world.services.archives
        assert archives is not None
        loop = Checkpointer(
            db=world.db,
            archives=archives,
            leases=world.services.leases,
            homes=world.services.homes,
            clock=clock,
        )
        project = await world.project()
        await clock.advance(timedelta(seconds=1))
        await world.services.containers.record(project.id, phase, reason="test")
        await loop.tick()
        assert await count(world, project) == 1
        await clock.advance(timedelta(minutes=1))
        await loop.tick()
        assert await count(world, project) == 1
        await world.services.containers.record(project.id, Phase.RUNNING, reason="test")
        process = await world.services.processes.exec(LOCAL_ACTOR, project.id, ["touch", "new"])
        await world.printed(process)
        await clock.advance(timedelta(minutes=1))
        await loop.tick()
        assert await count(world, project) == 2
    await checkpoints.close()
