"""A project's rows travel with its files: the store alone brings both back on another machine."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from anyon.clock import SystemClock
from anyon.db import copies
from anyon.db import projects as project_rows
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.ids import LOCAL_USER
from anyon.domain.states import ExitReason, Phase, ProcessStatus, TaskStatus
from anyon.services.archives import place
from anyon.services.recoveries import Outcome, Recoveries
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.testing.worlds import World, living


def over(store: MemoryStore, cache: Path, server: str) -> Checkpoints:
    """Return one machine's checkpoints over the store that all machines share."""
    return Checkpoints(store, cache=cache, clock=SystemClock(), server=server)


def recoveries(world: World, checkpoints: Checkpoints) -> Recoveries:
    """Return what takes up the store's projects into a world."""
    return Recoveries(
        checkpoints=checkpoints, db=world.db, homes=world.services.homes, clock=SystemClock()
    )


async def test_a_machine_is_lost_and_its_project_goes_on_elsewhere(tmp_path: Path) -> None:
    """Rows and files are there; what ran is ended machine_lost; a repeat changes nothing."""
    store = MemoryStore()
    first = over(store, tmp_path / "cache1", "one")
    async with living(tmp_path / "one", checkpoints=first) as world:
        project = await world.project("precious")
        done = await world.attempt(project, "echo made > made.txt", title="Done")
        await world.over(done)
        running = await world.attempt(project, "echo half > half.txt; sleep 600", title="Running")
        half = Path(project.path) / ".worktrees"
        while not list(half.glob("*/half.txt")):
            await SystemClock().sleep(timedelta(seconds=0.05))
        assert world.services.checkpoints is not None
        await world.services.checkpoints.take(LOCAL_ACTOR, project.id)
        await world.services.attempts.stop(LOCAL_ACTOR, running.id)
    await first.close()
    second = over(store, tmp_path / "cache2", "two")
    async with living(tmp_path / "two", checkpoints=second) as world:
        todo = recoveries(world, second)
        looked = await todo.recover(is_dry=True)
        assert [one.outcome for one in looked] == [Outcome.RECOVERED]
        assert await world.db.read(project_rows.find, project.id) is None
        found = await todo.recover(is_forced=True)
        assert [(one.name, one.tasks, one.attempts) for one in found] == [("precious", 2, 2)]
        assert [one.outcome for one in await todo.recover()] == [Outcome.PRESENT]
        back = await world.services.projects.get(LOCAL_ACTOR, project.id)
        assert back.phase is Phase.ARCHIVED
        assert back.path == str(world.services.homes.project(LOCAL_USER, project.id))
        lost = await world.services.attempts.processes(LOCAL_ACTOR, running.id)
        assert [(p.status, p.exit_reason) for p in lost] == [
            (ProcessStatus.KILLED, ExitReason.MACHINE_LOST)
        ]
        view = await world.services.tasks.get(LOCAL_ACTOR, running.task_id)
        assert view.task.status is TaskStatus.INREVIEW
        ran = await world.services.processes.exec(
            LOCAL_ACTOR, project.id, ["sh", "-c", "cat .worktrees/*/made.txt .worktrees/*/half.txt"]
        )
        assert await world.printed(ran) == b"made\nhalf\n"
        await world.services.checkpoints.take(LOCAL_ACTOR, project.id)  # type: ignore[union-attr]
    await second.close()


async def test_an_idle_project_says_the_same_again(tmp_path: Path) -> None:
    """Phases, leases and looks change no byte of the document, so they cost no checkpoint."""
    checkpoints = over(MemoryStore(), tmp_path / "cache", "one")
    async with living(tmp_path / "home", checkpoints=checkpoints) as world:
        project = await world.project()
        before = await world.db.read(copies.of_project, project.id)
        await world.services.containers.record(project.id, Phase.FROZEN, reason="test")
        async with world.services.containers.awake(project, holder="test", reason="test"):
            assert await world.db.read(copies.of_project, project.id) == before
        assert str(tmp_path) not in before.decode()
    await checkpoints.close()


async def test_a_deleted_project_is_recovered_as_one(tmp_path: Path) -> None:
    """What was deleted does not come back to life, but can be brought back for a whole window."""
    store = MemoryStore()
    first = over(store, tmp_path / "cache1", "one")
    async with living(tmp_path / "one", checkpoints=first) as world:
        project = await world.project("gone")
        await world.services.projects.delete(LOCAL_ACTOR, project.id)
        while (await world.services.deletions.list(LOCAL_ACTOR))[0].phase is not Phase.ABSENT:
            await SystemClock().sleep(timedelta(seconds=0.05))
    await first.close()
    second = over(store, tmp_path / "cache2", "two")
    async with living(tmp_path / "two", checkpoints=second) as world:
        found = await recoveries(world, second).recover(is_forced=True)
        assert [(one.outcome, one.is_deleted) for one in found] == [(Outcome.RECOVERED, True)]
        assert await world.services.projects.list(LOCAL_ACTOR) == []
        await world.services.deletions.undo(LOCAL_ACTOR, project.id)
        assert [one.name for one in await world.services.projects.list(LOCAL_ACTOR)] == ["gone"]
    await second.close()


async def test_a_damaged_project_costs_only_itself(tmp_path: Path) -> None:
    """One whose rows cannot be read is reported; the others are taken up."""
    store = MemoryStore()
    first = over(store, tmp_path / "cache1", "one")
    async with living(tmp_path / "one", checkpoints=first) as world:
        good = await world.project("good")
        assert world.services.checkpoints is not None
        await world.services.checkpoints.take(LOCAL_ACTOR, good.id)
    (tmp_path / "tree").mkdir()
    for name, rows in (("newer", json.dumps({"format": 99}).encode()), ("none", b"")):
        await first.save(f"local/{name}", {"workspace": tmp_path / "tree"}, records=rows)
    rows = await first.records(place(good))
    await first.save("local/copied", {"workspace": tmp_path / "tree"}, records=rows)
    await first.close()
    second = over(store, tmp_path / "cache2", "two")
    async with living(tmp_path / "two", checkpoints=second) as world:
        found = {
            one.place.partition("/")[2]: one
            for one in await recoveries(world, second).recover(is_forced=True)
        }
        assert found[good.id].outcome is Outcome.RECOVERED
        bad = [found["newer"], found["none"], found["copied"]]
        assert {one.code for one in bad} == {"records_unreadable"}
    await second.close()


@pytest.mark.parametrize("broken", [b"", b"[]", b'{"format": 1}', b'{"format": 2}', b"\xff"])
def test_what_is_no_document_is_refused(broken: bytes) -> None:
    """Nothing is taken up from bytes of another form."""
    with pytest.raises(copies.RecordsError):
        copies.read(broken)
