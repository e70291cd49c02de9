"""Tasks: what is recorded, what is told, what goes."""

from pathlib import Path
from typing import Any

import pytest

from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.errors import AnyonError
from anyon.domain.ids import AttemptId, ProjectId, new_id
from anyon.domain.states import TaskStatus
from anyon.services.feed import Kind
from anyon.services.tasks import NewTask, TaskChanges
from anyon.testing.worlds import World


async def test_a_task_is_told_before_the_answer(world: World) -> None:
    """Whoever has subscribed before finds the notice of a new task in the feed when create returns."""
    project = await world.project()
    with world.services.feed.subscribe(project.id) as changes:
        new = NewTask(project_id=project.id, description="Fix it\n\nsoon")
        view = await world.services.tasks.create(LOCAL_ACTOR, new)
        changes.close()
        told = [change async for change in changes]
    assert [(change.kind, change.id) for change in told] == [(Kind.TASK, view.task.id)]
    assert view.task.title == "Fix it"
    assert view == await world.services.tasks.get(LOCAL_ACTOR, view.task.id)
    assert [view] == list(await world.services.tasks.list(LOCAL_ACTOR, project.id))
    assert (view.executor, view.has_in_progress_attempt) == ("", False)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({}, "title_empty"),
        ({"title": " ", "description": "\n"}, "title_empty"),
        ({"title": "t", "description": "x" * (1024 * 1024 + 1)}, "too_long"),
        ({"title": "t", "description": "\0"}, "has_nul"),
        ({"title": "t", "project_id": ProjectId(new_id())}, "project_unknown"),
        ({"title": "t", "parent_attempt_id": AttemptId(new_id())}, "attempt_unknown"),
    ],
)
async def test_bad_tasks(world: World, more: dict[str, Any], code: str) -> None:
    """Each bad task has its code, and none is recorded."""
    project = await world.project()
    with pytest.raises(AnyonError) as caught:
        await world.services.tasks.create(
            LOCAL_ACTOR, NewTask(**{"project_id": project.id, **more})
        )
    assert caught.value.code == code
    assert list(await world.services.tasks.list(LOCAL_ACTOR, project.id)) == []


async def test_large_and_odd_texts_are_kept(world: World) -> None:
    """A description of exactly 1 MiB and a title of 300 emoji come back as they were."""
    project = await world.project()
    new = NewTask(project_id=project.id, title="👩‍👩‍👧‍👦" * 300, description="x" * 1024 * 1024)
    view = await world.services.tasks.create(LOCAL_ACTOR, new)
    found = (await world.services.tasks.get(LOCAL_ACTOR, view.task.id)).task
    assert (found.title, found.description) == (new.title, new.description)


async def test_changes(world: World) -> None:
    """A change keeps what it does not name; a title cannot become empty."""
    project = await world.project()
    new = NewTask(project_id=project.id, title="t", description="d")
    task = (await world.services.tasks.create(LOCAL_ACTOR, new)).task
    changes = TaskChanges(status=TaskStatus.DONE, description=None)
    changed = (await world.services.tasks.update(LOCAL_ACTOR, task.id, changes)).task
    assert (changed.title, changed.description, changed.status) == ("t", None, TaskStatus.DONE)
    with pytest.raises(AnyonError) as caught:
        await world.services.tasks.update(LOCAL_ACTOR, task.id, TaskChanges(title=" "))
    assert caught.value.code == "title_empty"


async def test_deletion_saves_unmerged_work(world: World) -> None:
    """A deleted task takes its attempts, worktrees and outputs with it; unmerged work goes to a hidden ref."""
    project = await world.project()
    attempt = await world.attempt(project, "echo new > new.txt")
    (process,) = await world.over(attempt)
    await world.services.tasks.delete(LOCAL_ACTOR, attempt.task_id)
    for call in (
        world.services.tasks.get(LOCAL_ACTOR, attempt.task_id),
        world.services.attempts.get(LOCAL_ACTOR, attempt.id),
        world.services.processes.get(LOCAL_ACTOR, process.id),
    ):
        with pytest.raises(AnyonError) as caught:
            await call
        assert caught.value.status == 404
    assert await world.processes.state(project.id, process.id) is None
    assert list(Path(project.path).glob(f".worktrees/{attempt.id}*")) == []
    (saved,) = await world.repositories.of(project.id).saved_work()
    assert saved.attempt == attempt.id
