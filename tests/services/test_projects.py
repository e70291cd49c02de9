"""Projects: creation from nothing, from a directory, from an address; bad input; deletion."""

import asyncio
import errno
import os
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from anyon.domain.actors import LOCAL_ACTOR, Actor
from anyon.domain.errors import (
    AnyonError,
    ConflictError,
    EngineFailedError,
    EngineUnavailableError,
    NotAllowedError,
    NotFoundError,
    UnavailableError,
)
from anyon.domain.ids import UserId, new_id
from anyon.domain.states import Phase
from anyon.engines.engine import ContainerInfo, ContainerSpec
from anyon.engines.memory import MemoryEngine
from anyon.services import projects as project_services
from anyon.services import trees
from anyon.services.projects import ProjectChanges
from anyon.testing.worlds import GRACE, World, living, until


def git(directory: Path, *words: str) -> str:
    """Run git for a fixture."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid"]
    command = ["git", "-C", str(directory), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A local repository with a commit, a link and a change that is not committed."""
    path = tmp_path / "source"
    path.mkdir()
    git(path, "init", "-q", "-b", "trunk")
    (path / "a.txt").write_text("one\n")
    (path / "run.sh").write_text("#!/bin/sh\n")
    (path / "run.sh").chmod(0o755)
    (path / "link").symlink_to("a.txt")
    git(path, "add", "-A")
    git(path, "commit", "-q", "-m", "first")
    (path / "a.txt").write_text("two\n")
    return path


async def nothing_is_left(world: World) -> bool:
    """Say whether no project has left a record, a container or a file."""
    places = ("projects", "state", "trash")
    try:
        files = [p for place in places for p in (world.home / place).glob("*/*") if p.is_dir()]
        files += list((world.home / "trash").glob("*")) + list((world.home / "state").glob("*"))
    except FileNotFoundError:  # the trash is being emptied just then
        return False
    return (
        list(await world.services.projects.list(LOCAL_ACTOR)) == []
        and list(await world.engine.list()) == []
        and files == []
    )


async def test_a_new_project(world: World) -> None:
    """A project without a source gets a repository with a branch main, in a running container."""
    project = await world.project("내 프로젝트")
    assert project.phase is Phase.RUNNING
    assert Path(project.path).parts[-3:] == ("projects", project.user_id, project.id)
    (branch,) = await world.services.projects.branches(LOCAL_ACTOR, project.id)
    assert (branch.name, branch.is_current) == ("main", True)
    assert list(await world.services.projects.list(LOCAL_ACTOR)) == [project]


async def test_an_imported_project(world: World, source: Path) -> None:
    """An import copies history, modes, links and uncommitted changes, and leaves the source alone."""
    before = git(source, "status", "--porcelain")
    project = await world.project(git_repo_path=str(source))
    copy = Path(project.path)
    assert (copy / "a.txt").read_text() == "two\n"
    assert os.access(copy / "run.sh", os.X_OK)
    assert (copy / "link").readlink() == Path("a.txt")
    assert git(copy, "log", "--format=%s") == "first\n"
    assert git(copy, "status", "--porcelain") == before == git(source, "status", "--porcelain")
    assert not (copy / ".gitignore").exists()


BAD = [
    ({"name": ""}, "name_empty"),
    ({"name": "x" * 101}, "name_too_long"),
    ({"name": "a\x07b"}, "name_has_control_characters"),
    ({"name": "../x"}, "name_path_like"),
    ({"git_repo_path": "relative"}, "path_not_absolute"),
    ({"git_repo_path": "/nowhere/at/all"}, "path_missing"),
    ({"git_repo_path": "/etc/hostname"}, "path_missing"),
    ({"git_repo_path": "/usr"}, "not_a_repository"),
    ({"git_repo_path": "/"}, "path_inside_home"),
    ({"clone_url": "ext::sh -c id"}, "bad_clone_url"),
    ({"clone_url": "file:///etc"}, "bad_clone_url"),
    ({"clone_url": "--upload-pack=id"}, "bad_clone_url"),
    ({"clone_url": "https://x.invalid/a.git", "git_repo_path": "/x"}, "two_sources"),
    ({"setup_script": "x" * 65_537}, "too_long"),
    ({"copy_files": "../secret"}, "bad_copy_pattern"),
    ({"default_agent": "NOBODY"}, "agent_unknown"),
    ({"image": "a b"}, "bad_image_name"),
]


@pytest.mark.parametrize(("more", "code"), BAD)
async def test_bad_input(world: World, more: dict[str, Any], code: str) -> None:
    """Each bad input has its stable code, and leaves nothing behind."""
    with pytest.raises(AnyonError) as caught:
        await world.project(**{"name": "demo", **more})
    assert (caught.value.code, caught.value.status) == (code, 422)
    assert await nothing_is_left(world)


async def test_special_files_are_refused(world: World, source: Path) -> None:
    """A pipe in an imported directory is refused (never opened), and nothing is left."""
    os.mkfifo(source / "pipe")
    with pytest.raises(AnyonError) as caught:
        await world.project(git_repo_path=str(source))
    assert caught.value.code == "special_file"
    await until(lambda: nothing_is_left(world))


async def test_imports_can_be_forbidden(tmp_path: Path, source: Path) -> None:
    """A server with more than the machine's own user reads no directories of the machine."""
    async with living(tmp_path / "home", may_import=False) as world:
        with pytest.raises(NotAllowedError) as caught:
            await world.project(git_repo_path=str(source))
        assert caught.value.code == "import_not_allowed"


async def test_linked_worktrees_are_refused(world: World, source: Path, tmp_path: Path) -> None:
    """A linked worktree is not copied: what it points to would not be there."""
    git(source, "worktree", "add", "-q", str(tmp_path / "linked"))
    with pytest.raises(AnyonError) as caught:
        await world.project(git_repo_path=str(tmp_path / "linked"))
    assert caught.value.code == "not_a_repository"


class FailingEngine(MemoryEngine):
    """Fails its starts, after their effect."""

    async def start(self, project: Any) -> ContainerInfo:
        """Start it, and say that it failed."""
        await super().start(project)
        raise EngineFailedError("the engine fell over")


async def test_a_failing_engine_leaves_nothing(tmp_path: Path) -> None:
    """When the container does not start, its record, its files and the container itself are gone again."""
    async with living(tmp_path / "home", engine=FailingEngine()) as world:
        with pytest.raises(EngineFailedError):
            await world.project()
        await until(lambda: nothing_is_left(world))


class LostEngine(MemoryEngine):
    """Is lost when it is asked to start, and answers nothing until it is found again."""

    is_lost = False

    async def start(self, project: Any) -> ContainerInfo:
        """Be lost, after the effect."""
        await super().start(project)
        self.is_lost = True
        raise EngineUnavailableError("the engine is away")

    async def remove(self, project: Any) -> None:
        """Remove it, if the engine is there."""
        if self.is_lost:
            raise EngineUnavailableError("the engine is away")
        await super().remove(project)


async def test_an_engine_that_is_lost_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that goes away while a project is made: the name is free, and all goes once it is back."""
    monkeypatch.setattr(project_services, "ERASE_PAUSE", timedelta(milliseconds=50))
    engine = LostEngine()
    async with living(tmp_path / "home", engine=engine) as world:
        with pytest.raises(EngineUnavailableError):
            await world.project()
        assert list(await world.services.projects.list(LOCAL_ACTOR)) == []
        assert len(await engine.list()) == 1
        engine.is_lost = False
        await until(lambda: nothing_is_left(world))


async def test_a_full_disk(world: World, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full while files are copied is named as such, and nothing is left."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trees.os, "sendfile", full)
    with pytest.raises(UnavailableError) as caught:
        await world.project(git_repo_path=str(source))
    assert caught.value.code == "disk_full"
    await until(lambda: nothing_is_left(world))


async def test_a_name_is_taken_once(world: World) -> None:
    """Of many creations with one name at once, one is made and the others are refused."""
    found = await asyncio.gather(*(world.project() for _ in range(5)), return_exceptions=True)
    errors = [error for error in found if isinstance(error, ConflictError)]
    assert [error.code for error in errors] == ["name_taken"] * 4
    assert len(await world.engine.list()) == 1


async def test_strangers_see_nothing(world: World) -> None:
    """Another user's project is answered like one that is not there, by every use case."""
    project = await world.project()
    stranger = Actor(UserId(new_id()))
    projects = world.services.projects
    assert list(await projects.list(stranger)) == []
    for call in (
        projects.get(stranger, project.id),
        projects.update(stranger, project.id, ProjectChanges(name="x")),
        projects.delete(stranger, project.id),
        projects.branches(stranger, project.id),
        world.services.tasks.list(stranger, project.id),
        world.services.processes.exec(stranger, project.id, ["true"]),
        world.services.processes.list(stranger, project.id),
    ):
        with pytest.raises(NotFoundError) as caught:
            await call
        assert caught.value.code == "project_unknown"


async def test_changes(world: World) -> None:
    """A change keeps what it does not name; another setup script will be run; a taken name is refused."""
    project = await world.project(setup_script="true", default_agent="claude-code")
    await world.over(await world.attempt(project, "true"))
    assert (await world.services.projects.get(LOCAL_ACTOR, project.id)).setup_completed_at
    changed = await world.services.projects.update(
        LOCAL_ACTOR, project.id, ProjectChanges(name="other", setup_script="date")
    )
    assert (changed.name, changed.setup_script) == ("other", "date")
    assert changed.setup_completed_at is None
    assert changed.default_agent == "CLAUDE_CODE"
    await world.project("second")
    with pytest.raises(ConflictError):
        await world.services.projects.update(LOCAL_ACTOR, project.id, ProjectChanges(name="second"))


async def test_deletion(world: World) -> None:
    """Deletion ends what runs, removes container and files of any depth, and frees the name at once."""
    project = await world.project()
    attempt = await world.attempt(project, "while :; do echo x; sleep 1; done")
    where = os.open(project.path, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=where)
        below = os.open("d", os.O_RDONLY, dir_fd=where)
        os.close(where)
        where = below
    os.close(where)
    await world.services.projects.delete(LOCAL_ACTOR, project.id)
    assert list(await world.engine.list()) == []
    with pytest.raises(NotFoundError):
        await world.services.attempts.get(LOCAL_ACTOR, attempt.id)
    await until(lambda: nothing_is_left(world))
    again = await world.project()
    assert again.id != project.id
    assert again.name == project.name


async def test_a_container_is_made_once(tmp_path: Path) -> None:
    """However many ask for a stopped project at once, its container is started once."""
    engine = CountingEngine()
    async with living(tmp_path / "home", engine=engine) as world:
        project = await world.project()
        await engine.stop(project.id, grace=GRACE)
        engine.starts = 0

        async def ask(number: int) -> None:
            containers = world.services.containers
            async with containers.awake(project, holder=str(number), reason="test"):
                assert len(await world.services.leases.of(project.id)) > 0

        await asyncio.gather(*(ask(number) for number in range(100)))
        assert engine.starts == 1
        assert list(await world.services.leases.of(project.id)) == []


class CountingEngine(MemoryEngine):
    """Counts its starts."""

    starts = 0

    async def start(self, project: Any) -> ContainerInfo:
        """Count, and start."""
        self.starts += 1
        await asyncio.sleep(0.05)
        return await super().start(project)

    async def ensure(self, spec: ContainerSpec) -> ContainerInfo:
        """Make it, in some time."""
        await asyncio.sleep(0.05)
        return await super().ensure(spec)


async def test_an_agent_can_commit_in_a_new_project(tmp_path: Path) -> None:
    """Git inside knows a name to commit by, of lowest rank: what the repository or the user says wins."""
    async with living(tmp_path / "home") as world:
        project = await world.project()
        script = (
            "git commit -q --allow-empty -m own && git log -1 --format='%an %ae' && "
            "git config user.name Kim && git commit -q --allow-empty -m own && git log -1 --format=%cn"
        )
        argv = ("sh", "-c", script)
        process = await world.services.processes.exec(LOCAL_ACTOR, project.id, argv)
        assert await world.printed(process) == b"Anyon anyon@localhost\nKim\n"
