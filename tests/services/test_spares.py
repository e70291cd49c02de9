"""Spare worktrees: a shortcut that nobody sees but by his clock."""

import asyncio
from pathlib import Path

import pytest

from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Attempt, Project
from anyon.domain.layout import project_directory
from anyon.git.repositories import GitRepository
from anyon.testing.worlds import World, until

_SPARE = Path(".worktrees/anyon-spare")


def _spare(world: World, project: Project) -> Path:
    return Path(project_directory(world.home, project.user_id, project.id)) / _SPARE


async def _made(world: World, project: Project) -> int:
    """Wait for a spare to be whole and return its inode."""
    directory = _spare(world, project)
    mark = directory.parent.parent / ".git/worktrees/anyon-spare/anyon-spare"

    async def is_there() -> bool:
        return mark.exists()

    await until(is_there)
    return (directory / ".gitignore").stat().st_ino


def _inode(world: World, project: Project, attempt: Attempt) -> int:
    assert attempt.worktree is not None
    name = attempt.worktree.rpartition("/")[2]
    return (_spare(world, project).parent / name / ".gitignore").stat().st_ino


async def test_the_next_attempt_takes_the_spare(world: World) -> None:
    """Each start leaves a spare behind and the next takes it; it is no branch and holds nothing awake."""
    project = await world.project()
    first = await world.attempt(project, "echo one > one.txt")
    await world.over(first)
    inode = await _made(world, project)
    second = await world.attempt(project, "ls; git status --porcelain --ignored")
    assert _inode(world, project, second) == inode
    (process,) = await world.over(second)
    assert await world.printed(process) == b""
    await _made(world, project)
    names = [
        branch.name for branch in await world.services.projects.branches(LOCAL_ACTOR, project.id)
    ]
    assert sorted(names) == sorted(["main", first.branch, second.branch])

    async def is_let_go() -> bool:
        return not await world.services.leases.of(project.id)

    await until(is_let_go)


async def test_first_attempts_at_once_look_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the workspace has checked out is looked up once for all who start at that moment."""
    project = await world.project()
    looks = 0
    look = GitRepository.current_branch

    async def counted(repository: GitRepository) -> str:
        nonlocal looks
        looks += 1
        return await look(repository)

    monkeypatch.setattr(GitRepository, "current_branch", counted)
    attempts = await asyncio.gather(*(world.attempt(project, "true") for _ in range(4)))
    assert {attempt.target_branch for attempt in attempts} == {"main"}
    assert looks == 1
    for attempt in attempts:
        await world.over(attempt)


async def test_a_merge_is_in_the_next_attempt(world: World) -> None:
    """A spare from before a merge does not hide the merge from the attempt that takes it."""
    project = await world.project()
    first = await world.attempt(project, "echo one > one.txt")
    await world.over(first)
    await _made(world, project)
    merge = await world.services.attempts.merge(LOCAL_ACTOR, first.id)
    (process,) = await world.over(await world.attempt(project, "cat one.txt"))
    assert await world.printed(process) == b"one\n"
    assert process.before_head_commit == merge


async def test_the_current_branch_is_the_target(world: World) -> None:
    """Whoever switches the workspace's branch between two starts gets attempts at the new one."""
    project = await world.project()
    assert (await world.attempt(project, "true")).target_branch == "main"
    await _made(world, project)
    done = await world.processes.run(project.id, ["git", "checkout", "-q", "-b", "other"])
    assert done.exit.code == 0, done
    attempt = await world.attempt(project, "true")
    assert attempt.target_branch == "other"
    found = await world.services.attempts.get(LOCAL_ACTOR, attempt.id)
    assert found.target_branch == "other"
    await world.over(attempt)


async def test_many_starts_at_once(world: World) -> None:
    """Starts that come together take one spare between them, and each is whole."""
    project = await world.project()
    await world.over(await world.attempt(project, "true"))
    await _made(world, project)
    attempts = [await world.attempt(project, "git status --porcelain; pwd") for _ in range(3)]
    for attempt in attempts:
        (process,) = await world.over(attempt)
        assert await world.printed(process) == f"{attempt.worktree}\n".encode()


async def test_a_deleted_project_leaves_no_spare(world: World) -> None:
    """It goes with the project, made or in the making."""
    for is_made in (True, False):
        project = await world.project(f"demo {is_made}")
        await world.over(await world.attempt(project, "true"))
        if is_made:
            await _made(world, project)
        await world.services.projects.delete(LOCAL_ACTOR, project.id)
        assert not _spare(world, project).exists()


async def test_a_spare_of_an_earlier_life(world: World) -> None:
    """A server that ends while a spare is written, or after, leaves one that the next life may take or not: work is whole."""
    project = await world.project()
    await world.over(await world.attempt(project, "echo one > one.txt"))
    for number in range(3):
        if number == 1:
            await _made(world, project)
        world = await world.reborn()
        await world.services.recover()
        attempt = await world.attempt(project, "git status --porcelain --ignored; ls")
        (process,) = await world.over(attempt)
        assert await world.printed(process) == b""
    await world.end()
