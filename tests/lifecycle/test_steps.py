"""Projects step down when idle, never under work, and the record follows the engine."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from tests.lifecycle.conftest import Life, checkpoints_of, is_free, run

from anyon.db import events as event_rows
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.errors import ConflictError, NotFoundError, UnavailableError
from anyon.domain.ids import LOCAL_USER, ProjectId
from anyon.domain.states import ExitReason, Phase
from anyon.engines.engine import ContainerInfo, ContainerState
from anyon.services.archives import place
from anyon.testing.worlds import until

MINUTE = timedelta(minutes=1)


async def test_an_idle_project_is_frozen_then_stopped_and_saved(life: Life) -> None:
    """After 5 idle minutes it is frozen, after 30 it is stopped, its files saved before it is called so."""
    project = await life.world.project()
    await life.pass_time(4 * MINUTE)
    assert await life.phase(project) is Phase.RUNNING
    await life.pass_time(MINUTE)
    assert await life.phase(project) is Phase.FROZEN
    assert await life.state(project) is ContainerState.FROZEN
    await life.pass_time(25 * MINUTE)
    assert await life.phase(project) is Phase.STOPPED
    assert await life.state(project) is ContainerState.STOPPED
    (saved,) = await checkpoints_of(life).history.list(LOCAL_ACTOR, project.id)
    assert saved.reason == "stop"


async def test_a_silent_job_of_45_minutes_survives(life: Life) -> None:
    """A running process holds its project awake however long it says nothing."""
    project = await life.world.project()
    process = await life.world.services.processes.exec(
        LOCAL_ACTOR,
        project.id,
        ["sh", "-c", "while ! [ -e gate ]; do sleep 0.1; done; echo survived"],
    )
    for _ in range(9):
        await life.pass_time(5 * MINUTE)
    assert await life.phase(project) is Phase.RUNNING
    await life.world.services.processes.exec(LOCAL_ACTOR, project.id, ["touch", "gate"])
    assert await life.world.printed(process) == b"survived\n"


@pytest.mark.parametrize("tier", [5, 30])
async def test_work_wakes_a_project_from_every_tier(life: Life, tier: int) -> None:
    """A command on a frozen or stopped project runs, and the project counts as active again."""
    project = await life.world.project()
    for _ in range(tier // 5):
        await life.pass_time(5 * MINUTE)
    assert await life.phase(project) in {Phase.FROZEN, Phase.STOPPED}
    process = await life.world.services.processes.exec(LOCAL_ACTOR, project.id, ["echo", "awake"])
    assert await life.world.printed(process) == b"awake\n"
    assert await life.phase(project) is Phase.RUNNING


async def test_five_hundred_callers_make_one_start(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask a stopped project at once, the engine is asked to start it once, and all are served."""
    project = await life.world.project()
    starts = []
    start = life.world.engine.start

    async def counted(project_id: ProjectId) -> ContainerInfo:
        starts.append(project_id)
        return await start(project_id)

    monkeypatch.setattr(life.world.engine, "start", counted)
    await life.pass_time(31 * MINUTE)
    containers = life.world.services.containers

    async def work(number: int) -> None:
        async with containers.awake(project, holder=f"caller {number}", reason="test"):
            assert await life.state(project) is ContainerState.RUNNING

    before = await life.world.engine.inspect(project.id)
    await asyncio.gather(*(work(number) for number in range(500)))
    assert starts == [project.id]
    after = await life.world.engine.inspect(project.id)
    assert before is not None
    assert after is not None
    assert after.started_at != before.started_at
    events = await life.world.db.read(event_rows.of_project, LOCAL_USER, project.id)
    assert len([e for e in events if e.kind == "phase.running"]) <= 2  # created, woken


async def test_looking_wakes_nobody(life: Life) -> None:
    """Lists and records of a stopped project leave it stopped."""
    project = await life.world.project()
    await life.pass_time(31 * MINUTE)
    await life.world.services.projects.list(LOCAL_ACTOR)
    await life.world.services.projects.get(LOCAL_ACTOR, project.id)
    await life.world.services.tasks.list(LOCAL_ACTOR, project.id)
    assert await life.state(project) is ContainerState.STOPPED


async def test_nothing_steps_down_in_the_middle_of_a_look(life: Life) -> None:
    """While a repository is being read its container stays; the look over, it sleeps, for it was no activity."""
    project = await life.world.project()
    async with life.world.services.containers.look(project):
        await life.pass_time(31 * MINUTE)
        assert await life.state(project) is ContainerState.RUNNING
    await life.pass_time(timedelta(seconds=1))
    assert await life.state(project) is ContainerState.STOPPED


async def test_a_stop_that_cannot_be_saved_is_never_called_stopped(life: Life) -> None:
    """While the store is away the phase is stopped_unsaved; it is tried again until it is saved."""
    project = await life.world.project()
    life.store.is_away = True
    await life.pass_time(31 * MINUTE)
    assert await life.phase(project) is Phase.STOPPED_UNSAVED
    await life.pass_time(MINUTE)
    assert await life.phase(project) is Phase.STOPPED_UNSAVED
    life.store.is_away = False
    await life.pass_time(MINUTE)
    assert await life.phase(project) is Phase.STOPPED


async def test_an_archived_project_comes_back_whole(life: Life) -> None:
    """After a week its files are in the store only; the next command has them all back, bit for bit."""
    project = await life.world.project()
    await run(
        life, project, "sh", "-c", "head -c 100000 /dev/urandom > noise; sha256sum noise > sum"
    )
    await run(life, project, "sh", "-c", "ln -s noise link; chmod 700 sum; echo hi > ~/note")
    await life.pass_time(31 * MINUTE)
    await life.pass_time(timedelta(days=8))
    assert await life.phase(project) is Phase.ARCHIVED
    assert not Path(project.path).exists()
    assert await life.state(project) is None
    told = await run(
        life,
        project,
        "sh",
        "-c",
        "sha256sum -c sum; readlink link; stat -c %a sum; cat ~/note; git status",
    )
    assert told.startswith(b"noise: OK\nnoise\n700\nhi\nOn branch main\n")
    assert await life.phase(project) is Phase.RUNNING


async def test_an_archive_that_was_cut_off_is_finished(life: Life) -> None:
    """A server that died between letting go of one tree and the next loses nothing."""
    project = await life.world.project()
    await run(life, project, "sh", "-c", "echo precious > file")
    await life.pass_time(31 * MINUTE)
    await life.world.services.containers.record(project.id, Phase.ARCHIVING, reason="idle")
    Path(project.path).rename(life.world.home / "elsewhere")  # as a release does, half way
    await life.pass_time(MINUTE)
    assert await life.phase(project) is Phase.ARCHIVED
    assert await run(life, project, "cat", "file") == b"precious\n"


async def test_a_restore_goes_back_and_can_be_undone(life: Life) -> None:
    """Going back to a checkpoint saves what is there first; and it refuses while something runs."""
    project = await life.world.project()
    use = checkpoints_of(life)
    await run(life, project, "sh", "-c", "echo one > file")
    first = await use.take(LOCAL_ACTOR, project.id)
    await run(life, project, "sh", "-c", "echo two > file; echo more > new")
    await use.restores.all_of(LOCAL_ACTOR, project.id, first.id, is_forced=False)
    assert await run(life, project, "sh", "-c", "cat file; ls new 2>&1 || true") == (
        b"one\nls: cannot access 'new': No such file or directory\n"
    )
    # What was brought back is the last state in the store too: the disk may go now.
    last, newest = (await use.history.list(LOCAL_ACTOR, project.id))[:2]
    assert (last.reason, newest.reason) == ("restored", "before_restore")
    assert last.roots["workspace"] == first.roots["workspace"]
    process = await life.world.services.processes.exec(LOCAL_ACTOR, project.id, ["sleep", "1000"])
    with pytest.raises(ConflictError, match="running"):
        await use.restores.all_of(LOCAL_ACTOR, project.id, newest.id, is_forced=False)
    await life.world.services.processes.kill(LOCAL_ACTOR, process.id)
    await until(lambda: is_free(life, project))
    await use.restores.all_of(LOCAL_ACTOR, project.id, newest.id, is_forced=False)
    assert await run(life, project, "cat", "file", "new") == b"two\nmore\n"


async def test_a_deleted_project_comes_back_within_the_window(life: Life) -> None:
    """Deletion frees the name and the disk at once; until the window is over it can be undone."""
    services = life.world.services
    project = await life.world.project("precious")
    await run(life, project, "sh", "-c", "echo kept > file")
    await services.projects.delete(LOCAL_ACTOR, project.id)
    assert not Path(project.path).exists()
    assert await services.projects.list(LOCAL_ACTOR) == []
    other = await life.world.project("precious")
    with pytest.raises(ConflictError, match="another project"):
        await services.deletions.undo(LOCAL_ACTOR, project.id)
    await services.projects.delete(LOCAL_ACTOR, other.id)
    await services.deletions.undo(LOCAL_ACTOR, project.id)
    assert await run(life, project, "cat", "file") == b"kept\n"


async def test_a_deletion_saves_a_project_whose_container_is_gone(life: Life) -> None:
    """A container that somebody removed takes what was installed along, never the work: undo has it."""
    project = await life.world.project()
    await run(life, project, "sh", "-c", "echo kept > file")
    await life.world.engine.remove(project.id)
    await life.world.services.projects.delete(LOCAL_ACTOR, project.id)
    await life.world.services.deletions.undo(LOCAL_ACTOR, project.id)
    assert await run(life, project, "cat", "file") == b"kept\n"


async def test_after_the_window_nothing_is_left_of_a_deleted_project(life: Life) -> None:
    """The reaper forgets checkpoints and record; a younger tombstone stays."""
    services = life.world.services
    old = await life.world.project("old")
    await services.projects.delete(LOCAL_ACTOR, old.id)
    await life.clock.advance(timedelta(days=6))
    young = await life.world.project("young")
    await services.projects.delete(LOCAL_ACTOR, young.id)
    await life.clock.advance(timedelta(days=2))
    await services.deletions.purge()
    assert [one.id for one in await services.deletions.list(LOCAL_ACTOR)] == [young.id]
    assert services.archives is not None
    assert await services.archives.checkpoints.list(place(old)) == []
    with pytest.raises(NotFoundError):
        await services.deletions.undo(LOCAL_ACTOR, old.id)


async def test_a_container_stopped_behind_our_back_ends_its_processes(life: Life) -> None:
    """A container that somebody stopped is noticed; what ran in it has the reason container_stopped."""
    project = await life.world.project()
    process = await life.world.services.processes.exec(LOCAL_ACTOR, project.id, ["sleep", "1000"])
    await life.world.engine.stop(project.id, grace=timedelta(seconds=1))
    await life.reconciler.tick()

    async def is_over() -> bool:
        found = await life.world.services.processes.get(LOCAL_ACTOR, process.id)
        return found.exit_reason is not None

    await until(is_over)
    found = await life.world.services.processes.get(LOCAL_ACTOR, process.id)
    assert found.exit_reason in {ExitReason.CONTAINER_STOPPED, ExitReason.SIGNALLED}


async def test_a_container_removed_behind_our_back_is_made_again(life: Life) -> None:
    """The record says absent, and the next work makes the container anew."""
    project = await life.world.project()
    await life.world.engine.remove(project.id)
    await life.reconciler.tick()
    assert await life.phase(project) is Phase.ABSENT
    process = await life.world.services.processes.exec(LOCAL_ACTOR, project.id, ["echo", "again"])
    assert await life.world.printed(process) == b"again\n"


async def test_one_project_that_fails_does_not_keep_the_others(life: Life) -> None:
    """A step that fails costs only its own project; the rest step down in the same tick."""
    bad, good = await life.world.project("bad"), await life.world.project("good")
    freeze = life.world.engine.freeze

    async def failing(project: str) -> object:
        if project == bad.id:
            raise UnavailableError("the engine does not answer")
        return await freeze(project)  # type: ignore[arg-type]

    life.world.engine.freeze = failing  # type: ignore[method-assign,assignment]
    await life.pass_time(6 * MINUTE)
    assert await life.phase(good) is Phase.FROZEN
    assert await life.phase(bad) is Phase.RUNNING


@pytest.mark.parametrize("days", [30, -30])
async def test_a_clock_that_jumps_ends_no_work(life: Life, days: int) -> None:
    """A wall clock set a month forward or back never stops a project in which something runs."""
    project = await life.world.project()
    await life.world.services.processes.exec(LOCAL_ACTOR, project.id, ["sleep", "1000"])
    life.clock.jump(timedelta(days=days))
    await life.reconciler.tick()
    await life.pass_time(timedelta(seconds=30))
    assert await life.state(project) is ContainerState.RUNNING
