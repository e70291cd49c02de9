"""A project belongs to one server; one that lost it stands still, and nothing of either is mixed."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from anyon.clock import SystemClock
from anyon.db import projects as project_rows
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.domain.errors import ConflictError
from anyon.domain.life import Tiers
from anyon.domain.states import Phase
from anyon.services.archives import place
from anyon.services.recoveries import Outcome, Recoveries
from anyon.services.steps import Steps
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.testing.worlds import World, living, until


def over(store: MemoryStore, home: Path, server: str) -> Checkpoints:
    """Return one server's checkpoints over the shared store."""
    cache = home.parent / f"{home.name}-cache"
    return Checkpoints(store, cache=cache, clock=SystemClock(), server=server)


async def recover(world: World, checkpoints: Checkpoints, *, is_forced: bool) -> list[str]:
    """Recover into a world and return what became of each project, or why it failed."""
    recoveries = Recoveries(
        checkpoints=checkpoints, db=world.db, homes=world.services.homes, clock=SystemClock()
    )
    return [one.code or str(one.outcome) for one in await recoveries.recover(is_forced=is_forced)]


async def take(world: World, project: Project) -> None:
    """Save the project."""
    assert world.services.checkpoints is not None
    await world.services.checkpoints.take(LOCAL_ACTOR, project.id)


async def test_the_server_that_lost_a_project_stands_still(tmp_path: Path) -> None:
    """Its next save is refused, its phase says why, no step and no work comes after; its files stay."""
    store = MemoryStore()
    one, two = tmp_path / "one", tmp_path / "two"
    first, second = over(store, one, "one"), over(store, two, "two")
    async with (
        living(one, checkpoints=first) as loser,
        living(two, checkpoints=second) as winner,
    ):
        project = await loser.project("wanted")
        await take(loser, project)
        assert await recover(winner, second, is_forced=False) == ["owned_elsewhere"]
        assert await winner.db.read(project_rows.find, project.id) is None
        assert await recover(winner, second, is_forced=True) == [Outcome.RECOVERED]
        ran = await winner.services.processes.exec(LOCAL_ACTOR, project.id, ["touch", "newer"])
        await winner.printed(ran)
        await take(winner, project)
        (Path(project.path) / "stale").write_text("of the loser")
        with pytest.raises(ConflictError) as refused:
            await take(loser, project)
        assert refused.value.code == "owned_elsewhere"
        lost = await loser.services.projects.get(LOCAL_ACTOR, project.id)
        assert (lost.phase, lost.state_reason) == (Phase.ERROR, "owned_elsewhere")
        with pytest.raises(ConflictError) as refused:
            await loser.services.processes.exec(LOCAL_ACTOR, project.id, ["true"])
        assert refused.value.code == "owned_elsewhere"
        assert await steps(loser).take(project.id) is None
        assert (Path(project.path) / "stale").exists()
        names = {e.name for e in await second.entries(place(project), None, "workspace")}
        assert b"newer" in names
        assert b"stale" not in names
        await take(winner, project)
    await first.close()
    await second.close()


def steps(world: World) -> Steps:
    """Return what would step a world's projects down at once."""
    moment = timedelta(microseconds=1)
    return Steps(
        db=world.db,
        engine=world.engine,
        processes=world.processes,
        containers=world.services.containers,
        leases=world.services.leases,
        archives=world.services.archives,
        clock=SystemClock(),
        tiers=Tiers(freeze_after=moment, stop_after=moment, archive_after=moment),
        grace=moment,
        views=world.services.views,
    )


async def test_a_project_whose_files_are_gone_is_restored(tmp_path: Path) -> None:
    """With the disk lost and the records there, the next work finds the last state and no empty one."""
    checkpoints = over(MemoryStore(), tmp_path / "home", "one")
    async with living(tmp_path / "home", checkpoints=checkpoints) as world:
        project = await world.project("kept")
        ran = await world.services.processes.exec(LOCAL_ACTOR, project.id, ["touch", "precious"])
        await world.printed(ran)
        await take(world, project)
        await world.services.containers.halt(project.id)
        shutil.rmtree(project.path)
        with pytest.raises(ConflictError):
            await take(world, project)
        ran = await world.services.processes.exec(LOCAL_ACTOR, project.id, ["ls"])
        assert b"precious" in await world.printed(ran)
    await checkpoints.close()


async def test_a_server_that_wakes_a_lost_project_learns_it_soon(tmp_path: Path) -> None:
    """Not only its next save tells: the start of a container asks whose the project is."""
    store = MemoryStore()
    one, two = tmp_path / "one", tmp_path / "two"
    first, second = over(store, one, "one"), over(store, two, "two")
    async with (
        living(one, checkpoints=first) as loser,
        living(two, checkpoints=second) as winner,
    ):
        project = await loser.project("wanted")
        await take(loser, project)
        await loser.services.containers.halt(project.id)
        assert await recover(winner, second, is_forced=True) == [Outcome.RECOVERED]
        assert loser.services.archives is not None
        loser.services.archives._claims.clear()  # as after some minutes
        await loser.services.processes.exec(LOCAL_ACTOR, project.id, ["true"])

        async def is_told() -> bool:
            found = await loser.services.projects.get(LOCAL_ACTOR, project.id)
            return found.state_reason == "owned_elsewhere"

        await until(is_told)
    await first.close()
    await second.close()


async def test_nobody_forgets_what_another_server_has(tmp_path: Path) -> None:
    """The reaper of a server that lost a project does not remove it from the store."""
    store = MemoryStore()
    one, two = tmp_path / "one", tmp_path / "two"
    first, second = over(store, one, "one"), over(store, two, "two")
    async with (
        living(one, checkpoints=first) as loser,
        living(two, checkpoints=second) as winner,
    ):
        project = await loser.project("wanted")
        await take(loser, project)
        assert await recover(winner, second, is_forced=True) == [Outcome.RECOVERED]
        loser_archives = over(store, one, "one")
        assert loser.services.archives is not None
        loser.services.archives._checkpoints = loser_archives
        loser.services.archives._claims.clear()
        with pytest.raises(ConflictError):
            await loser.services.archives.forget(project)
        assert await second.latest(place(project)) is not None
        await loser_archives.close()
    await first.close()
    await second.close()
