"""Wakes are limited by an hour's budget and by places; the line is fair, refusals are clear."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from tests.lifecycle.conftest import Life, begun, run

from anyon.domain.actors import LOCAL_ACTOR, Actor
from anyon.domain.entities import Project
from anyon.domain.errors import OverLimitError
from anyon.domain.ids import UserId, new_id
from anyon.domain.life import Tiers
from anyon.domain.states import Phase
from anyon.engines.engine import ContainerState
from anyon.services.projects import NewProject
from anyon.testing.worlds import until

MINUTE = timedelta(minutes=1)


async def woken(life: Life, project: Project, name: str, order: list[str]) -> None:
    """Wake a project and note who came when."""
    async with life.world.services.containers.awake(project, holder=name, reason="test"):
        order.append(name)


async def up(life: Life) -> int:
    """Return how many containers run or are frozen."""
    states = [info.state for info in await life.world.engine.list()]
    return len([state for state in states if state is not ContainerState.STOPPED])


async def test_a_budget_of_wakes_is_refused_clearly_and_comes_back(tmp_path: Path) -> None:
    """Beyond its wakes of an hour a project is refused with a hint; others are not; an hour later it may again."""
    async with begun(tmp_path, wakes_per_hour=2) as life:
        project, other = await life.world.project("one"), await life.world.project("other")
        for _ in range(2):
            await life.pass_time(6 * MINUTE)
            assert await life.phase(project) is Phase.FROZEN
            assert await run(life, project, "echo", "on") == b"on\n"
            assert await run(life, project, "echo", "again") == b"again\n"  # no wake: it runs
        await life.pass_time(6 * MINUTE)
        with pytest.raises(OverLimitError) as caught:
            await life.world.services.processes.exec(LOCAL_ACTOR, project.id, ["true"])
        assert caught.value.code == "wake_budget"
        assert "minutes" in caught.value.hint
        assert await life.state(project) is ContainerState.FROZEN
        assert await run(life, other, "echo", "on") == b"on\n"
        await life.pass_time(timedelta(hours=1))
        assert await run(life, project, "echo", "on") == b"on\n"


async def test_frozen_projects_make_room_and_held_ones_never(tmp_path: Path) -> None:
    """At the limit the longest idle frozen project is stopped, saved; with none, the wait ends in no_capacity."""
    async with begun(tmp_path, max_running=2) as life:
        old, young = await life.world.project("old"), await life.world.project("young")
        await run(life, old, "sh", "-c", "echo kept > file")
        await life.clock.advance(MINUTE)
        await run(life, young, "true")
        await life.pass_time(6 * MINUTE)
        third = await life.world.project("third")
        assert await life.phase(old) is Phase.STOPPED
        assert await life.phase(young) is Phase.FROZEN
        assert await up(life) == 2
        async with AsyncExitStack() as held:
            for project in (young, third):
                hold = life.world.services.containers.awake(project, holder="h", reason="test")
                await held.enter_async_context(hold)
            asking = asyncio.create_task(woken(life, old, "old", []))
            outlooks = life.world.services.outlooks

            async def is_waiting() -> bool:
                return (await outlooks.of(LOCAL_ACTOR, old.id)).position == 1

            await until(is_waiting)
            await until_over(life, asking)
            with pytest.raises(OverLimitError) as caught:
                asking.result()
            assert caught.value.code == "no_capacity"
            assert await up(life) == 2
            assert await life.state(young) is ContainerState.RUNNING
        assert (await outlooks.of(LOCAL_ACTOR, old.id)).position is None
        await life.pass_time(6 * MINUTE)
        assert await run(life, old, "cat", "file") == b"kept\n"
        assert await up(life) == 2


async def until_over(life: Life, task: "asyncio.Task[None]") -> None:
    """Let time pass second by second until *task* is over."""
    async with asyncio.timeout(60):
        while not task.done():
            await life.clock.advance(timedelta(seconds=10))
            await asyncio.sleep(0.01)


async def test_the_line_is_fair_between_users(tmp_path: Path) -> None:
    """A user with one project does not wait behind all of another's: turns go round the users."""
    quick = Tiers(freeze_after=timedelta(seconds=1), stop_after=timedelta(0))
    async with begun(tmp_path, tiers=quick, max_running=1) as life:
        services = life.world.services
        modest = Actor(UserId(new_id()))
        mine = [await created(life, LOCAL_ACTOR, f"p{number}") for number in range(3)]
        theirs = await created(life, modest, "theirs")
        blocker = await created(life, LOCAL_ACTOR, "blocker")
        order: list[str] = []
        async with services.containers.awake(blocker, holder="b", reason="test"):
            asking = []
            for number, project in enumerate([*mine, theirs]):
                asking.append(asyncio.create_task(woken(life, project, f"w{number}", order)))

                async def waits(project: Project = project) -> bool:
                    return services.places.position(project.id) is not None

                await until(waits)
            assert services.places.position(theirs.id) == 1
            assert services.places.position(mine[0].id) == 2
        async with asyncio.timeout(60):
            while not all(task.done() for task in asking):
                await sleep(life)
        await asyncio.gather(*asking)
        assert order == ["w3", "w0", "w1", "w2"]


async def created(life: Life, actor: Actor, name: str) -> Project:
    """Make a project, the others going to sleep meanwhile."""
    making = asyncio.create_task(life.world.services.projects.create(actor, NewProject(name=name)))
    async with asyncio.timeout(60):
        while not making.done():
            await sleep(life)
    return making.result()


async def sleep(life: Life) -> None:
    """Let every idle project freeze, so that it makes room."""
    await life.pass_time(timedelta(seconds=2))
    await asyncio.sleep(0.005)
