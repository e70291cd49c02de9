"""Pictures from their upload to the agent that looks at them; and tags."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from anyon.db import events as event_rows
from anyon.db import pictures as picture_rows
from anyon.domain import pictures as rules
from anyon.domain.actors import LOCAL_ACTOR, Actor
from anyon.domain.entities import Attempt
from anyon.domain.errors import AnyonError, NotFoundError, OverLimitError
from anyon.domain.ids import PictureId, TaskId, UserId, new_id
from anyon.domain.states import ProcessStatus
from anyon.git import attachments
from anyon.services import tags
from anyon.services.tasks import NewTask, TaskChanges
from anyon.testing.worlds import World, living

PNG = b"\x89PNG\r\n\x1a\n"
STRANGER = Actor(UserId(new_id()))


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose users have room for 100 bytes of pictures."""
    async with living(tmp_path / "home", picture_quota=100) as world:
        yield world


async def test_one_content_is_one_picture(world: World) -> None:
    """The same bytes under another name give what is there; nothing is kept twice."""
    pictures = world.services.pictures
    first = await pictures.upload(LOCAL_ACTOR, "a.png", PNG)
    again = await pictures.upload(LOCAL_ACTOR, "b.png", PNG)
    assert again == first
    assert await pictures.content(LOCAL_ACTOR, first.id) == (first, PNG)
    assert await world.db.read(picture_rows.use, LOCAL_ACTOR.user_id) == (1, len(PNG))


async def test_the_quota(small: World) -> None:
    """What is too much is refused with what to do, and leaves nothing; deleting makes room."""
    pictures = small.services.pictures
    kept = await pictures.upload(LOCAL_ACTOR, "a.png", PNG + bytes(60))
    with pytest.raises(OverLimitError) as caught:
        await pictures.upload(LOCAL_ACTOR, "b.png", PNG + b"x" * 60)
    assert caught.value.code == "images_full"
    assert "picture_quota" in caught.value.hint
    assert await small.db.read(picture_rows.use, LOCAL_ACTOR.user_id) == (1, 68)
    await pictures.delete(LOCAL_ACTOR, kept.id)
    await pictures.upload(LOCAL_ACTOR, "b.png", PNG + b"x" * 60)


async def test_counts_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user has so many pictures, and a task; what is too much changes nothing."""
    services = world.services
    project = await world.project()
    new = NewTask(project_id=project.id, title="t")
    task = (await services.tasks.create(LOCAL_ACTOR, new)).task
    monkeypatch.setattr(rules, "MOST_OF_TASK", 1)
    monkeypatch.setattr(rules, "MOST_OF_USER", 2)
    one = await services.pictures.upload(LOCAL_ACTOR, "1.png", PNG + b"1", task_id=task.id)
    with pytest.raises(OverLimitError) as caught:
        await services.pictures.upload(LOCAL_ACTOR, "2.png", PNG + b"2", task_id=task.id)
    assert caught.value.code == "task_images_full"
    two = await services.pictures.upload(LOCAL_ACTOR, "2.png", PNG + b"2")
    changes = TaskChanges(picture_ids=[two.id, one.id])
    with pytest.raises(OverLimitError) as caught:
        await services.tasks.update(LOCAL_ACTOR, task.id, changes)
    assert caught.value.code == "task_images_full"
    assert await services.pictures.of_task(LOCAL_ACTOR, task.id) == [one]
    with pytest.raises(OverLimitError) as caught:
        await services.pictures.upload(LOCAL_ACTOR, "3.png", PNG + b"3")
    assert caught.value.code == "images_full"


async def test_attached_replaced_and_gone(world: World) -> None:
    """A task's pictures are those it was made with, then those it was given instead; a deletion frees them."""
    services = world.services
    project = await world.project()
    one, two = [
        await services.pictures.upload(LOCAL_ACTOR, "x.png", PNG + content)
        for content in (b"1", b"2")
    ]
    new = NewTask(project_id=project.id, title="t", picture_ids=[two.id, one.id])
    task = (await services.tasks.create(LOCAL_ACTOR, new)).task
    assert await services.pictures.of_task(LOCAL_ACTOR, task.id) == [two, one]
    await services.tasks.update(LOCAL_ACTOR, task.id, TaskChanges(title="u"))
    assert len(await services.pictures.of_task(LOCAL_ACTOR, task.id)) == 2
    await services.tasks.update(LOCAL_ACTOR, task.id, TaskChanges(picture_ids=[one.id]))
    assert await services.pictures.of_task(LOCAL_ACTOR, task.id) == [one]
    await services.tasks.delete(LOCAL_ACTOR, task.id)
    assert await services.pictures.content(LOCAL_ACTOR, one.id) == (one, PNG + b"1")
    with pytest.raises(NotFoundError) as caught:
        await services.pictures.of_task(LOCAL_ACTOR, task.id)
    assert caught.value.code == "task_unknown"


async def test_another_users_picture_is_not_there(world: World) -> None:
    """To attach, to read, to delete: it is unknown, and what asked for it is not done."""
    services = world.services
    project = await world.project()
    foreign = await services.pictures.upload(STRANGER, "x.png", PNG)
    task = (
        await services.tasks.create(LOCAL_ACTOR, NewTask(project_id=project.id, title="t"))
    ).task
    new = NewTask(project_id=project.id, title="other", picture_ids=[foreign.id])
    tries = (
        services.tasks.create(LOCAL_ACTOR, new),
        services.tasks.update(
            LOCAL_ACTOR, task.id, TaskChanges(title="x", picture_ids=[foreign.id])
        ),
        services.pictures.content(LOCAL_ACTOR, foreign.id),
        services.pictures.delete(LOCAL_ACTOR, foreign.id),
        services.pictures.check(LOCAL_ACTOR, [foreign.id]),
        services.pictures.content(LOCAL_ACTOR, PictureId(new_id())),
    )
    for one in tries:
        with pytest.raises(NotFoundError) as caught:
            await one
        assert (caught.value.code, caught.value.message) == ("image_unknown", "Image not found.")
    assert [view.task for view in await services.tasks.list(LOCAL_ACTOR, project.id)] == [task]
    assert await services.pictures.content(STRANGER, foreign.id) == (foreign, PNG)
    with pytest.raises(NotFoundError):
        await services.pictures.upload(STRANGER, "y.png", PNG + b"y", task_id=TaskId(task.id))


async def _attempt(world: World, script: str, *contents: bytes) -> tuple[Attempt, list[str]]:
    """Start an attempt with pictures of these contents; return it and their files."""
    project = await world.project()
    made = [await world.services.pictures.upload(LOCAL_ACTOR, "그림.png", one) for one in contents]
    text = script.format(*(one.file for one in made))
    new = NewTask(
        project_id=project.id, title="t", description=text, picture_ids=[one.id for one in made]
    )
    task = (await world.services.tasks.create(LOCAL_ACTOR, new)).task
    attempt = await world.services.attempts.start(LOCAL_ACTOR, task.id, agent="SHELL")
    return attempt, [one.file for one in made]


async def _missing(world: World, attempt: Attempt) -> list[str]:
    user = LOCAL_ACTOR.user_id
    found = await world.db.read(event_rows.of_project, user, attempt.project_id)
    return [event.detail for event in found if event.kind == "image.missing"]


async def test_the_agent_finds_its_pictures(world: World) -> None:
    """They lie in the worktree, are named by whole paths in its prompt, and are in no commit."""
    script = "cat .vibe-images/{0}; echo; echo '![그림](.vibe-images/{0})'; echo x >made.txt"
    attempt, [file] = await _attempt(world, script, PNG + b"seen")
    [process] = await world.over(attempt)
    whole = f"![그림]({attempt.worktree}/.vibe-images/{file})"
    assert await world.printed(process) == PNG + f"seen\n{whole}\n".encode()
    [diff] = await world.services.attempts.diff(LOCAL_ACTOR, attempt.id)
    assert diff.new_path == "made.txt"
    status = await world.services.attempts.status(LOCAL_ACTOR, attempt.id)
    assert status.branch is not None
    assert (status.branch.untracked, status.branch.uncommitted) == (0, 0)
    assert await _missing(world, attempt) == []
    # What is recorded, and shown to people, says it as it was written.
    assert f"(.vibe-images/{file})" in process.action


async def test_a_follow_up_brings_more(world: World) -> None:
    """Pictures given with a follow-up are the task's from then on, and there; one that was damaged comes anew."""
    attempt, [file] = await _attempt(world, "echo cut >.vibe-images/{0}", PNG)
    await world.over(attempt)
    more = await world.services.pictures.upload(LOCAL_ACTOR, "more.png", PNG + b"more")
    process = await world.services.attempts.follow_up(
        LOCAL_ACTOR,
        attempt.id,
        f"cat .vibe-images/{more.file} .vibe-images/{file}",
        None,
        [more.id],
    )
    await world.over(attempt)
    assert await world.printed(process) == PNG + b"more" + PNG
    of_task = await world.services.pictures.of_task(LOCAL_ACTOR, attempt.task_id)
    assert [one.file for one in of_task] == [file, more.file]
    with pytest.raises(NotFoundError) as caught:
        await world.services.attempts.follow_up(
            LOCAL_ACTOR, attempt.id, "x", None, [PictureId(new_id())]
        )
    assert caught.value.code == "image_unknown"


async def test_a_missing_picture_is_told(world: World) -> None:
    """A prompt that shows what is not there is run all the same, and the project's events say so."""
    attempt, _ = await _attempt(world, "true # ![](.vibe-images/gone.png) ![](.vibe-images/a;b)")
    [process] = await world.over(attempt)
    assert process.status is ProcessStatus.COMPLETED
    told = await _missing(world, attempt)
    assert len(told) == 2
    assert any(f"{process.id}: .vibe-images/gone.png: " in words for words in told)


_PLANTED = "rm -rf .vibe-images; mkdir ../out; ln -s ../out .vibe-images; ls -A ../out"
_LISTED = "ls -A ../out; test -L .vibe-images && echo link"


async def test_a_planted_link_is_not_followed(world: World) -> None:
    """Where a tenant put a link in the folder's place nothing is written through it, and that is told."""
    attempt, [file] = await _attempt(world, _PLANTED + " # {0}", PNG)
    await world.over(attempt)
    process = await world.services.attempts.follow_up(LOCAL_ACTOR, attempt.id, _LISTED)
    await world.over(attempt)
    assert await world.printed(process) == b"link\n"
    [words] = await _missing(world, attempt)
    assert f".vibe-images/{file}: the file cannot be written there" in words


async def test_without_the_defence_it_would_be(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a script that goes in without looking writes through the planted link."""
    unsafe = 'enter() { cd -- "$1/$2"; }\n'
    for name in ("_MISSING", "_LAY"):
        script = getattr(attachments, name)
        monkeypatch.setattr(attachments, name, script.replace('enter "$1"', f'{unsafe}enter "$1"'))
    attempt, [file] = await _attempt(world, "true # {0}", PNG)
    await world.over(attempt)
    project = await world.services.projects.get(LOCAL_ACTOR, attempt.project_id)
    place = Path(project.path, ".worktrees", Path(attempt.worktree or "").name)
    assert not (place / ".vibe-images").exists()  # nor does the unsafe one make it
    (place.parent / "out").mkdir()
    (place / ".vibe-images").symlink_to("../out")
    await world.services.attempts.follow_up(LOCAL_ACTOR, attempt.id, "true")
    await world.over(attempt)
    assert (place.parent / "out" / file).read_bytes() == PNG


async def test_tags(world: World) -> None:
    """Made, found by part of their name in any case, changed, deleted; another's are not there."""
    service = world.services.tags
    bug = await service.create(LOCAL_ACTOR, " Bug_보고 ", "steps:\n1.")
    await service.create(LOCAL_ACTOR, "alpha", "")
    assert bug.name == "Bug_보고"
    assert [one.name for one in await service.list(LOCAL_ACTOR)] == ["Bug_보고", "alpha"]
    assert await service.list(LOCAL_ACTOR, "bUG") == [bug]
    changed = await service.update(LOCAL_ACTOR, bug.id, content="other")
    assert (changed.name, changed.content) == (bug.name, "other")
    assert await service.list(STRANGER) == []
    for one in (
        service.update(STRANGER, bug.id, name="x"),
        service.delete(STRANGER, bug.id),
    ):
        with pytest.raises(NotFoundError) as caught:
            await one
        assert caught.value.code == "tag_unknown"
    await service.delete(LOCAL_ACTOR, bug.id)
    assert [one.name for one in await service.list(LOCAL_ACTOR)] == ["alpha"]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        (" ", "x", "name_empty"),
        ("a\nb", "x", "name_has_control_characters"),
        ("x" * 101, "x", "name_too_long"),
        ("x", "가" * 22_000, "too_long"),
        ("x", "\0", "has_nul"),
    ],
)
async def test_bad_tags_are_refused(world: World, name: str, content: str, code: str) -> None:
    """What no name or content may be is refused with its code, and nothing is kept."""
    with pytest.raises(AnyonError) as caught:
        await world.services.tags.create(LOCAL_ACTOR, name, content)
    assert caught.value.code == code
    assert await world.services.tags.list(LOCAL_ACTOR) == []


async def test_tags_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user has so many tags and no more."""
    monkeypatch.setattr(tags, "MOST", 1)
    await world.services.tags.create(LOCAL_ACTOR, "one", "")
    with pytest.raises(OverLimitError) as caught:
        await world.services.tags.create(LOCAL_ACTOR, "two", "")
    assert caught.value.code == "tags_full"
