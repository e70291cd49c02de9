"""Moving projects between the local disk and a mount: proven before the switch, nothing lost by a failure."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert
from tests.services.test_mounts import Mounted, mounted

from anyon.clock import SystemClock
from anyon.db.schema import members
from anyon.domain.actors import LOCAL_ACTOR, Actor
from anyon.domain.entities import Project
from anyon.domain.errors import ConflictError, NotAllowedError, NotFoundError, UnavailableError
from anyon.domain.ids import UserId, new_id
from anyon.services import fingerprints, moves
from anyon.services.journals import Journal, Step, note_brought_in
from anyon.services.projects import NewProject
from anyon.testing.worlds import until


async def local_project(one: Mounted, name: str = "demo") -> Project:
    """Make a project with a worktree and an executable file, on the local disk."""
    homes = one.world.services.homes
    homes._is_on_mount = False
    project = await one.world.project(name)
    homes._is_on_mount = True
    place = Path(project.path)
    (place / "도구").write_text("#!/bin/sh\necho hi\n")
    (place / "도구").chmod(0o755)
    (place / "링크").symlink_to("도구")
    attempt = await one.world.attempt(
        project, "echo hello >new; git add -A; git commit -qm new; echo dirty >dirty"
    )
    await one.world.over(attempt)
    return project


async def moved(one: Mounted, project: Project, *, to_mount: bool) -> Project:
    """Move a project, waiting until nothing runs in it, and return it as it is recorded."""

    async def done() -> bool:
        try:
            await one.world.services.moves.move(LOCAL_ACTOR, project.id, to_mount=to_mount)
        except ConflictError as error:
            if error.code != "project_busy":
                raise
            return False
        return True

    await until(done)
    return await one.world.services.projects.get(LOCAL_ACTOR, project.id)


async def test_there_and_back(tmp_path: Path) -> None:
    """Every file comes along, worktrees too; the way back restores modes and git's settings; work goes on."""
    async with mounted(tmp_path) as one:
        project = await local_project(one)
        before = fingerprints.work(fingerprints.fingerprint(Path(project.path)))
        there = await moved(one, project, to_mount=True)
        assert Path(there.path).is_relative_to(one.mounts.place)
        after = fingerprints.work(fingerprints.fingerprint(Path(there.path)))
        assert [n for n in fingerprints.differing(before, after) if n != b".git/config"] == []
        backup = one.world.services.homes.backup(project)
        assert fingerprints.work(fingerprints.fingerprint(backup)) == before
        assert (one.world.home / "projects").is_symlink()
        assert (
            await one.world.services.moves.move(LOCAL_ACTOR, project.id, to_mount=True)
        ).state == "there"
        attempt = await one.world.attempt(there, "echo more >more")
        await one.world.over(attempt)
        for path in Path(there.path).rglob("*"):  # as a bucket would: no modes are kept
            if path.is_file() and not path.is_symlink():
                path.chmod(0o755)
        back = await moved(one, there, to_mount=False)
        assert back.path == project.path
        assert not (one.world.home / "projects").is_symlink()
        assert os.access(Path(back.path) / "도구", os.X_OK)
        assert not os.access(Path(back.path) / ".gitignore", os.X_OK)
        assert "filemode = true" in (Path(back.path) / ".git/config").read_text().lower()
        assert not Path(there.path).exists()
        assert list(Path(back.path).glob(".worktrees/*/more"))


async def test_whose_projects_are_moved(tmp_path: Path) -> None:
    """The operator moves everybody's; a tenant only their own: another's is unknown, or not theirs to move."""
    async with mounted(tmp_path) as one:
        services = one.world.services
        anna, bert = Actor(UserId(new_id())), Actor(UserId(new_id()))
        theirs = {
            who: await services.projects.create(who, NewProject(name="demo"))
            for who in (anna, bert, LOCAL_ACTOR)
        }
        assert [project for project, _ in await services.moves.movable(anna)] == [theirs[anna]]
        assert {project.id for project, _ in await services.moves.movable(LOCAL_ACTOR)} == {
            project.id for project in theirs.values()
        }
        for other in (theirs[bert], theirs[LOCAL_ACTOR]):
            with pytest.raises(NotFoundError) as unknown:
                await services.moves.move(anna, other.id, to_mount=False)
            assert unknown.value.code == "project_unknown"
        await one.world.db.write(join, theirs[bert], anna.user_id)
        with pytest.raises(NotAllowedError) as refused:
            await services.moves.move(anna, theirs[bert].id, to_mount=False)
        assert refused.value.code == "owners_only"
        assert [project for project, _ in await services.moves.movable(anna)] == [theirs[anna]]
        for who, project in ((anna, theirs[anna]), (LOCAL_ACTOR, theirs[bert])):
            done = await services.moves.move(who, project.id, to_mount=False)
            assert (done.state, done.project.user_id) == ("moved", project.user_id)
            assert Path(done.project.path) == services.homes.local(project.user_id, project.id)
        on_mount = {
            project.id: there for project, there in await services.moves.movable(LOCAL_ACTOR)
        }
        assert on_mount == {
            theirs[anna].id: False,
            theirs[bert].id: False,
            theirs[LOCAL_ACTOR].id: True,
        }


def join(connection: Connection, project: Project, user: UserId) -> None:
    """Make a user a member of somebody's project."""
    row = {"project_id": project.id, "user_id": user, "role": "member"}
    connection.execute(insert(members).values(**row, created_at=project.created_at))


async def test_a_busy_project_is_left_alone(tmp_path: Path) -> None:
    """While something holds the project nothing is moved; another one is moved meanwhile."""
    async with mounted(tmp_path) as one:
        project, other = await local_project(one, "one"), await local_project(one, "two")
        async with one.world.services.leases.hold(project.id, holder="test", reason="hold"):
            with pytest.raises(ConflictError) as refused:
                await one.world.services.moves.move(LOCAL_ACTOR, project.id, to_mount=True)
            assert refused.value.code == "project_busy"
            assert Path((await moved(one, other, to_mount=True)).path).is_relative_to(
                one.mounts.place
            )
        found = await one.world.services.projects.get(LOCAL_ACTOR, project.id)
        assert found.path == project.path


async def test_a_copy_that_differs_is_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a copy in which one byte differs is found; the project is as it was, nothing is left."""
    async with mounted(tmp_path) as one:
        project = await local_project(one)
        whole = moves.trees.copy_tree

        def torn(source: Path, target: Path, **more: object) -> None:
            whole(source, target)
            (target / "도구").write_text("#!/bin/sh\necho ho\n")

        monkeypatch.setattr(moves.trees, "copy_tree", torn)
        with pytest.raises(ConflictError) as refused:
            await moved(one, project, to_mount=True)
        assert refused.value.code == "copy_differs"
        found = await one.world.services.projects.get(LOCAL_ACTOR, project.id)
        assert found.path == project.path
        assert (Path(found.path) / "도구").read_text() == "#!/bin/sh\necho hi\n"
        assert not list(one.mounts.place.glob("*/*"))
        monkeypatch.undo()
        assert Path((await moved(one, project, to_mount=True)).path).is_relative_to(
            one.mounts.place
        )


async def test_a_damaged_repository_stays_where_it_is(tmp_path: Path) -> None:
    """What git cannot read whole is not moved: the source stays, with no copy beside it."""
    async with mounted(tmp_path) as one:
        project = await local_project(one)
        victim = next(p for p in Path(project.path).glob(".git/objects/??/*") if p.is_file())
        victim.chmod(0o644)
        victim.write_bytes(b"damaged")
        with pytest.raises(Exception, match=r"(?i)damag|corrupt|object|fsck"):
            await moved(one, project, to_mount=True)
        found = await one.world.services.projects.get(LOCAL_ACTOR, project.id)
        assert found.path == project.path
        assert not list(one.mounts.place.glob("*/*"))


async def test_without_a_mount_nothing_is_moved(tmp_path: Path) -> None:
    """A mount that does not answer is told, and nothing is written beneath it."""
    async with mounted(tmp_path) as one:
        project = await local_project(one)
        one.mounter.is_silent = True
        await one.mounts.look()
        with pytest.raises(UnavailableError) as refused:
            await moved(one, project, to_mount=True)
        assert refused.value.code == "mount_unavailable"


@pytest.mark.parametrize("is_switched", [False, True])
async def test_a_move_that_was_cut_off(tmp_path: Path, is_switched: bool) -> None:
    """The next server takes an unfinished copy away, or finishes the one that was switched; a repeat works."""
    async with mounted(tmp_path) as one:
        project = await local_project(one)
        homes, journal = one.world.services.homes, Journal(one.world.home)
        target = homes.mounted(project.user_id, project.id)
        if is_switched:
            there = await moved(one, project, to_mount=True)
            homes.backup(project).rename(tmp_path / "former")  # as if it had not been put away yet
            (one.world.home / "projects").unlink()
            Path(project.path).parent.mkdir(parents=True)
            (tmp_path / "former").rename(project.path)
            assert there.path == str(target)
        else:
            other = await moved(one, await local_project(one, "other"), to_mount=True)
            record = journal.read(other.id)
            assert record is not None
            journal.write(
                replace(
                    record,
                    project=project.id,
                    step=Step.COPYING,
                    source=project.path,
                    target=str(target),
                )
            )
            target.mkdir(parents=True)
            (target / "half").write_text("1")
        found = await one.world.services.projects.get(LOCAL_ACTOR, project.id)
        await one.world.services.moves.recover(found)
        if is_switched:
            assert (one.world.home / "projects").is_symlink()
            assert (homes.backup(project) / ".git").is_dir()
        else:
            assert not target.exists()
            assert journal.read(project.id) is None
        assert Path((await moved(one, found, to_mount=True)).path) == target
        assert (target / ".git").is_dir()


async def test_only_the_homes_own_files_are_put_away(tmp_path: Path) -> None:
    """A source that a migration only read is never touched, whatever the records say; nor is all of a place."""
    async with mounted(tmp_path) as one:
        project = await local_project(one)
        homes, source = one.world.services.homes, tmp_path / "old" / "workspace"
        source.mkdir(parents=True)
        (source / "mine").write_text("1")
        note_brought_in(one.world.home, project, source, SystemClock().now())
        await one.world.services.moves.recover(project)
        assert (source / "mine").read_text() == "1"
        for place in (source, one.world.home / "projects", one.mounts.place, one.world.home):
            with pytest.raises(ConflictError):
                homes.put_away(place, "")
        assert (source / "mine").read_text() == "1"
