"""A wake that brings files back and is cut off: whatever runs afterwards runs over the files that are kept."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.lifecycle.conftest import Life, run

from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.domain.errors import UnavailableError
from anyon.domain.ids import ProjectId
from anyon.domain.states import Phase
from anyon.engines.engine import ContainerState
from anyon.services.containers import Containers

MINUTE = timedelta(minutes=1)
Recorded = Callable[..., Any]


async def archived(life: Life) -> Project:
    """Return a project whose files are in the store only."""
    project = await life.world.project()
    await run(life, project, "sh", "-c", "echo precious > file")
    await life.pass_time(31 * MINUTE)
    await life.pass_time(timedelta(days=8))
    assert await life.phase(project) is Phase.ARCHIVED
    return project


async def cut_off(
    life: Life, project: Project, monkeypatch: pytest.MonkeyPatch, *, tells: bool = True
) -> None:
    """Wake *project* with a server that dies after the start; it *tells* before that the files are back."""
    record: Recorded = Containers.record

    async def dying(self: Containers, project_id: ProjectId, phase: Phase, **more: Any) -> None:
        if phase is Phase.RUNNING:
            raise UnavailableError("the server is dead")
        if tells or more["reason"] != "restored":
            await record(self, project_id, phase, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Containers, "record", dying)
        with pytest.raises(UnavailableError):
            await run(life, project, "true")
    assert await life.state(project) is ContainerState.RUNNING


async def is_kept(life: Life, project: Project) -> bool:
    """Work in the project, and say whether the work found its files, and is where they are."""
    seen = await run(life, project, "cat", "file")
    await run(life, project, "sh", "-c", "echo new > made; true")
    return seen == b"precious\n" and (Path(project.path) / "made").is_file()


async def test_a_wake_cut_off_after_its_start_loses_no_work(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server died between the start and its record: the project runs on over its own files."""
    project = await archived(life)
    await cut_off(life, project, monkeypatch)
    await life.pass_time(MINUTE)
    assert await life.phase(project) is Phase.RUNNING
    assert await is_kept(life, project)


@pytest.mark.parametrize("is_looked_at", [True, False], ids=["by a look", "by work"])
async def test_a_restore_is_finished_under_no_running_program(
    life: Life, monkeypatch: pytest.MonkeyPatch, *, is_looked_at: bool
) -> None:
    """A container that runs while files are called away is stopped before they are put there."""
    project = await archived(life)
    await cut_off(life, project, monkeypatch, tells=False)
    assert await life.phase(project) is Phase.RESTORING
    if is_looked_at:
        await life.pass_time(MINUTE)
    assert await is_kept(life, project)


async def test_the_work_would_be_lost(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with nothing recorded and nothing stopped, work goes to files that are thrown away."""

    async def left_running(*_: object) -> None:
        return

    project = await archived(life)
    await cut_off(life, project, monkeypatch, tells=False)
    with monkeypatch.context() as patch:
        patch.setattr(Containers, "rest", left_running)
        await life.pass_time(MINUTE)
    assert not await is_kept(life, project)


async def test_a_container_over_files_that_are_away_is_stopped_by_name(life: Life) -> None:
    """Somebody started it behind our back in the middle of a restore: a stop by name ends it."""
    project = await life.world.project()
    await run(life, project, "sh", "-c", "echo precious > file")
    await life.world.services.containers.record(project.id, Phase.RESTORING, reason="woken")
    await life.world.services.goals.stop(LOCAL_ACTOR, project.id, is_forced=True)
    assert await life.state(project) is ContainerState.STOPPED
