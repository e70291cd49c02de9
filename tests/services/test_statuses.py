"""One look at everything: boards, what runs, who holds it, and how safe the files are."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from anyon.domain.actors import LOCAL_ACTOR, Actor
from anyon.domain.ids import UserId
from anyon.domain.life import Step
from anyon.domain.states import Phase, TaskStatus
from anyon.services.statuses import Standing, Statuses
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.testing.clocks import FakeClock
from anyon.testing.worlds import World, living, until


@pytest.fixture
async def saved_world(tmp_path: Path) -> AsyncIterator[tuple[World, FakeClock]]:
    """A server that keeps checkpoints, whose time the test owns."""
    clock = FakeClock()
    checkpoints = Checkpoints(MemoryStore(), cache=tmp_path / "cache", clock=clock)
    async with living(tmp_path / "home", clock=clock, checkpoints=checkpoints) as world:
        yield world, clock
    await checkpoints.close()


async def standing(world: World) -> Standing:
    """Return how the only project stands."""
    (found,) = await world.services.statuses.of(LOCAL_ACTOR)
    return found


async def test_it_shows_the_board_and_what_runs(world: World) -> None:
    """Tasks are counted by status, processes while they run, leases by reason; the last active is first."""
    project = await world.project("busy")
    attempt = await world.attempt(project, "while [ ! -e stop ]; do sleep 0.1; done")
    other = await world.project("idle")

    async def runs() -> bool:
        found = {it.project.id: it for it in await world.services.statuses.of(LOCAL_ACTOR)}
        return found[project.id].processes == 1

    await until(runs)
    found = {it.project.id: it for it in await world.services.statuses.of(LOCAL_ACTOR)}
    assert found[project.id].tasks == {TaskStatus.INPROGRESS: 1}
    assert found[project.id].leases == {"codingagent": 1}
    assert found[project.id].next_step is None
    assert found[project.id].unsaved_for is None
    assert (found[other.id].tasks, found[other.id].processes) == ({}, 0)
    assert found[other.id].next_step is Step.FREEZE
    await world.services.attempts.stop(LOCAL_ACTOR, attempt.id)


async def test_it_says_how_old_the_saved_state_is(saved_world: tuple[World, FakeClock]) -> None:
    """From this life's saves, and after a restart from the record of the former's."""
    world, clock = saved_world
    project = await world.project()
    assert (await standing(world)).saved_at is None
    await clock.advance(timedelta(minutes=4))
    assert ((await standing(world)).unsaved_for or timedelta(0)) >= timedelta(minutes=4)
    archives = world.services.archives
    assert archives is not None
    saved = await archives.save(project, reason="asked")
    found = await standing(world)
    assert found.unsaved_for == timedelta(0)
    assert found.saved_at is not None
    later = Statuses(
        db=world.db,
        leases=world.services.leases,
        archives=type(archives)(
            checkpoints=archives._checkpoints,
            trees=("workspace",),
            db=world.db,
            homes=world.services.homes,
            clock=clock,
        ),
        places=world.services.places,
        tiers=world.services.tiers,
        clock=clock,
    )
    (again,) = await later.of(LOCAL_ACTOR)
    assert again.saved_at is not None
    assert abs(again.saved_at - saved.at) < timedelta(seconds=5)


async def test_others_see_nothing_and_looking_wakes_nothing(world: World) -> None:
    """A stranger has no projects, and a sleeping one sleeps on."""
    project = await world.project()
    await world.engine.stop(project.id, grace=timedelta(0))
    await world.services.containers.record(project.id, Phase.STOPPED, reason="idle")
    stranger = Actor(UserId("00000000-0000-4000-8000-0000000000ff"))
    assert await world.services.statuses.of(stranger) == []
    assert (await standing(world)).project.phase is Phase.STOPPED
    info = await world.engine.inspect(project.id)
    assert info is not None
    assert info.state == "stopped"
