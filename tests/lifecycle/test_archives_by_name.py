"""A project that somebody archives by name: all of it in the store, nothing of it here, back with its next work."""

from datetime import timedelta
from pathlib import Path

import pytest
from tests.lifecycle.conftest import Life, begun, run
from tests.lifecycle.test_stops import ENGINES, found, real

from anyon.db import events as event_rows
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.errors import ConflictError
from anyon.domain.ids import LOCAL_USER
from anyon.domain.life import Tiers
from anyon.domain.states import Goal, Phase

MINUTE = timedelta(minutes=1)


async def archive(life: Life, project: object, *, is_forced: bool = False) -> None:
    """Ask for it as a user does."""
    await life.world.services.goals.archive(LOCAL_ACTOR, project.id, is_forced=is_forced)  # type: ignore[attr-defined]


@pytest.mark.parametrize("engine", ENGINES)
async def test_its_files_go_and_come_back(tmp_path: Path, engine: str) -> None:
    """On a real engine: no container, no file here, every byte in the store; the next work has them again."""
    async with real(tmp_path, engine) as (life, project):
        await run(life, project, "sh", "-c", "printf kept >file; chmod 750 file")
        await archive(life, project)
        assert await life.phase(project) is Phase.ARCHIVED
        assert await life.state(project) is None
        assert not (Path(project.path) / "file").exists()
        await life.pass_time(MINUTE)
        assert await life.phase(project) is Phase.ARCHIVED
        said = await run(life, project, "sh", "-c", "cat file; stat -c %a file")
        assert said == b"kept750\n"
        assert (await found(life, project)).goal is Goal.RUNNING
        events = await life.world.db.read(event_rows.of_project, LOCAL_USER, project.id)
        told = [(event.kind, event.reason) for event in events if event.kind.startswith("goal.")]
        assert told == [("goal.archived", "asked"), ("goal.running", "work")]


async def test_what_holds_it_is_named(life: Life) -> None:
    """Without force nothing is done and nothing is wanted; with it holds are released."""
    services = life.world.services
    project = await life.world.project()
    await services.holds.take(LOCAL_ACTOR, project.id, reason="demo", length=timedelta(hours=1))
    with pytest.raises(ConflictError, match="demo") as refused:
        await archive(life, project)
    assert refused.value.code == "project_busy"
    assert (await found(life, project)).goal is Goal.RUNNING
    assert await life.phase(project) is Phase.RUNNING
    await archive(life, project, is_forced=True)
    await life.pass_time(MINUTE)
    assert await life.phase(project) is Phase.ARCHIVED


async def test_its_files_stay_until_the_store_has_them(life: Life) -> None:
    """While the store does not answer it is stopped and unsaved; the wish stands, and a later look carries it out."""
    project = await life.world.project()
    await run(life, project, "sh", "-c", "echo kept >file")
    life.store.is_away = True
    await archive(life, project)
    assert await life.phase(project) is Phase.STOPPED_UNSAVED
    assert (Path(project.path) / "file").read_text() == "kept\n"
    life.store.is_away = False
    for _ in range(5):  # the save, and then the rest; a look that failed waits some time
        await life.pass_time(5 * MINUTE)
    assert await life.phase(project) is Phase.ARCHIVED
    assert not Path(project.path).exists()
    assert await run(life, project, "cat", "file") == b"kept\n"


async def test_one_whose_container_is_gone_is_saved_and_archived(life: Life) -> None:
    """Somebody removed the container: its files are here, in no checkpoint, and are in one before they go."""
    project = await life.world.project()
    await run(life, project, "sh", "-c", "echo kept >file")
    await life.world.engine.remove(project.id)
    await life.pass_time(MINUTE)
    assert await life.phase(project) is Phase.ABSENT
    await archive(life, project)
    assert await life.phase(project) is Phase.ARCHIVED
    assert not Path(project.path).exists()
    assert await run(life, project, "cat", "file") == b"kept\n"


@pytest.mark.parametrize("phase", [Phase.ARCHIVING, Phase.RESTORING])
async def test_what_a_dead_server_began_is_finished(life: Life, phase: Phase) -> None:
    """An archive or a restore that was cut off: the project is archived when this returns, and loses nothing."""
    project = await life.world.project()
    await run(life, project, "sh", "-c", "echo kept >file")
    await life.pass_time(31 * MINUTE)
    await life.world.services.containers.record(project.id, phase, reason="idle")
    if phase is Phase.RESTORING:  # half of it is here
        (Path(project.path) / "file").unlink()
    await archive(life, project)
    assert await life.phase(project) is Phase.ARCHIVED
    assert not Path(project.path).exists()
    assert await run(life, project, "cat", "file") == b"kept\n"


async def test_one_that_is_stopped_is_archived_and_not_the_other_way(life: Life) -> None:
    """It goes further than a stop, which leaves it as it is."""
    goals = life.world.services.goals
    project = await life.world.project()
    await goals.stop(LOCAL_ACTOR, project.id, is_forced=False)
    await archive(life, project)
    await goals.stop(LOCAL_ACTOR, project.id, is_forced=False)
    assert (await found(life, project)).goal is Goal.ARCHIVED
    assert await life.phase(project) is Phase.ARCHIVED


@pytest.mark.parametrize("can", [True, False])
async def test_where_files_must_stay_it_is_refused(tmp_path: Path, *, can: bool) -> None:
    """Where no checkpoint holds all of a project nothing is wanted; elsewhere a tier that is off forbids nothing."""
    tiers = Tiers(archive_after=timedelta(0), can_archive=can)
    async with begun(tmp_path, tiers=tiers) as life:
        project = await life.world.project()
        if can:
            await archive(life, project)
            assert await life.phase(project) is Phase.ARCHIVED
            return
        with pytest.raises(ConflictError) as refused:
            await archive(life, project)
        assert refused.value.code == "archive_not_possible"
        assert (await found(life, project)).goal is Goal.RUNNING
        assert await life.phase(project) is Phase.RUNNING
