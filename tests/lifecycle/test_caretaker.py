"""The loops over the store: collection by itself, and proofs that pick their projects."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.lifecycle.caretaker import Caretaker
from anyon.services.archives import place
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.retention import Retention
from anyon.testing.clocks import FakeClock
from anyon.testing.worlds import World, living

NIGHT = timedelta(days=1)
SHORT = Retention(
    everything=timedelta(hours=1), hourly=timedelta(0), daily=timedelta(0), monthly=timedelta(0)
)


class Cared:
    """A world with a caretaker, whose time the test owns."""

    def __init__(self, world: World, clock: FakeClock) -> None:
        services = world.services
        assert services.archives is not None
        assert services.checkpoints is not None
        self.world, self.clock = world, clock
        self.checkpoints = services.archives.checkpoints
        self.upkeep = services.checkpoints.upkeep
        self.caretaker = Caretaker(
            db=world.db,
            archives=services.archives,
            upkeep=self.upkeep,
            clock=clock,
            server_id=services.server_id,
            drill_hour=3,
            drill_projects=1,
        )

    async def save(self, project: Project, text: str) -> None:
        """Change a project and save it."""
        (Path(project.path) / "file").write_text(text)
        assert self.world.services.checkpoints is not None
        await self.world.services.checkpoints.take(LOCAL_ACTOR, project.id)

    async def proven(self, project: Project) -> bool:
        """Say whether a restore of the project was proven."""
        return (await self.upkeep.standing(project)).proven_at is not None


@pytest.fixture
async def cared(tmp_path: Path) -> AsyncIterator[Cared]:
    """A server with a store and short retention."""
    clock = FakeClock()
    checkpoints = Checkpoints(
        MemoryStore(), cache=tmp_path / "cache", clock=clock, retention=SHORT, server="one"
    )
    changes = {"clock": clock, "checkpoints": checkpoints}
    async with living(tmp_path / "home", **changes) as world:
        yield Cared(world, clock)
    await checkpoints.close()


async def test_old_checkpoints_go_by_themselves(cared: Cared) -> None:
    """A round collects what was saved since the last one, and everything once a day."""
    project = await cared.world.project()
    for text in "abc":
        await cared.clock.advance(timedelta(minutes=1))
        await cared.save(project, text)
    assert len(await cared.checkpoints.ids(place(project))) == 3
    await cared.caretaker.collect()
    assert len(await cared.checkpoints.ids(place(project))) == 3  # all are younger than the grace
    await cared.clock.advance(timedelta(days=3))
    await cared.caretaker.collect()
    # The memory store's times are the machine's own; the records' are the test's.
    found = await cared.checkpoints.list(place(project))
    assert found[0].at == max(one.at for one in found)
    assert (await cared.upkeep.standing(project)).collected_at is not None


async def test_a_server_that_begins_does_not_list_everything(cared: Cared) -> None:
    """The first round touches only what was saved in this life."""
    idle, busy = await cared.world.project("idle"), await cared.world.project("busy")
    await cared.clock.advance(timedelta(minutes=1))
    await cared.save(busy, "x")
    await cared.caretaker.collect()
    assert (await cared.upkeep.standing(busy)).collected_at is not None
    assert (await cared.upkeep.standing(idle)).collected_at is None


async def test_each_night_proves_another_project(cared: Cared) -> None:
    """One a night here, never the same twice while another waits; one without a checkpoint holds up nobody."""
    one, two = await cared.world.project("one"), await cared.world.project("two")
    await cared.world.project("never saved")
    for project in (one, two):
        await cared.save(project, "x")
    await cared.caretaker.prove()
    assert not await cared.proven(one)
    assert not await cared.proven(two)
    for _ in range(4):
        await cared.clock.advance(NIGHT)
        for _ in range(3):
            await cared.caretaker.prove()
    assert await cared.proven(one)
    assert await cared.proven(two)
