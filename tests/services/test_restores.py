"""Going back in place, wholly or in part; forks; upkeep: over real files, git and a real store format."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from anyon.clock import SystemClock
from anyon.db import projects as project_rows
from anyon.domain.actors import LOCAL_ACTOR, Actor
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError, ConflictError, InvalidInputError, NotFoundError
from anyon.domain.ids import ProjectId, UserId
from anyon.domain.states import Phase
from anyon.services.archives import place
from anyon.services.checkpoints import ProjectCheckpoints
from anyon.services.recoveries import Outcome, Recoveries
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.files import FilesStore
from anyon.storage.objects import DamagedError, StoreUnavailableError
from anyon.telemetry import Metrics
from anyon.testing.worlds import World, living, until

STRANGER = Actor(user_id=UserId("00000000-0000-4000-8000-00000000beef"), scopes=frozenset({"*"}))


class Kept:
    """A world whose projects are saved to a store in a directory."""

    def __init__(self, world: World, store: Path, metrics: Metrics) -> None:
        self.world = world
        self.store = store
        self.metrics = metrics

    @property
    def use(self) -> ProjectCheckpoints:
        """The use cases on checkpoints."""
        found = self.world.services.checkpoints
        assert found is not None
        return found

    async def run(self, project: Project, script: str) -> None:
        """Run a script inside and wait until nothing holds the project."""
        ran = await self.world.services.processes.exec(
            LOCAL_ACTOR, project.id, ["sh", "-c", script]
        )
        await self.world.printed(ran)
        await self.idle(project)

    async def idle(self, project: Project) -> None:
        """Wait until nothing holds the project."""

        async def is_free() -> bool:
            return not await self.world.services.leases.of(project.id)

        await until(is_free)

    async def saved(self, project: Project, **files: str) -> str:
        """Write files into the workspace, save, and return the checkpoint's id."""
        for name, text in files.items():
            (Path(project.path) / name).write_text(text)
        return (await self.use.take(LOCAL_ACTOR, project.id)).id


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    """A server with a store."""
    metrics = Metrics()
    checkpoints = Checkpoints(
        FilesStore(tmp_path / "store"), cache=tmp_path / "cache", clock=SystemClock(), server="one"
    )
    async with living(tmp_path / "home", checkpoints=checkpoints, metrics=metrics) as world:
        yield Kept(world, tmp_path / "store", metrics)
    await checkpoints.close()


async def test_one_path_comes_back(kept: Kept) -> None:
    """A file, then a directory that is gone, with odd names; the rest stays, and what was there is saved."""
    project = await kept.world.project()
    root = Path(project.path)
    odd = os.fsdecode(b"\xff\nodd")
    (root / "dir/inner").mkdir(parents=True)
    (root / "dir/inner" / odd).write_text("odd")
    first = await kept.saved(project, one="1", two="1")
    (root / "dir/inner" / odd).unlink()
    (root / "dir/inner").rmdir()
    (root / "dir").rmdir()
    await kept.saved(project, one="2", two="2")
    (root / "one").write_text("3")
    use = kept.use.restores
    await use.path(LOCAL_ACTOR, project.id, first, b"workspace/one", is_forced=False)
    await use.path(
        LOCAL_ACTOR, project.id, first, b"workspace/dir/inner/\xff\nodd", is_forced=False
    )
    assert (root / "one").read_text() == "1"
    assert (root / "two").read_text() == "2"
    assert (root / "dir/inner" / odd).read_text() == "odd"
    listed = await kept.use.history.list(LOCAL_ACTOR, project.id)
    before = [one for one in listed if one.reason == "before_restore"]
    third = await kept.use.archives.checkpoints.read(
        place(project), before[-1].id, "workspace/one", limit_bytes=9
    )
    assert third == b"3"
    for leftovers in ("restores", "trash"):
        assert not list((kept.world.home / leftovers).iterdir())


@pytest.mark.parametrize(
    ("path", "error", "code"),
    [
        (b"workspace", InvalidInputError, "bad_path"),
        (b"workspace/no", NotFoundError, "path_not_found"),
        (b"nowhere/no", NotFoundError, "tree_not_found"),
        (b"workspace/link/file", NotFoundError, "path_not_found"),
    ],
)
async def test_a_path_that_cannot_come_back(
    kept: Kept, path: bytes, error: type[AnyonError], code: str
) -> None:
    """What a checkpoint has not is told, and nothing is changed or left behind."""
    project = await kept.world.project()
    (Path(project.path) / "link").symlink_to("/etc")
    first = await kept.saved(project, one="1")
    (Path(project.path) / "one").write_text("2")
    with pytest.raises(error) as refused:
        await kept.use.restores.path(LOCAL_ACTOR, project.id, first, path, is_forced=False)
    assert refused.value.code == code
    assert (Path(project.path) / "one").read_text() == "2"
    assert len(await kept.use.history.list(LOCAL_ACTOR, project.id)) == 1


async def test_a_link_on_the_way_leads_nowhere(kept: Kept, tmp_path: Path) -> None:
    """Where a directory became a symbolic link, nothing is written through it."""
    project = await kept.world.project()
    root = Path(project.path)
    (root / "dir").mkdir()
    (root / "dir/file").write_text("1")
    first = await kept.saved(project)
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "dir/file").unlink()
    (root / "dir").rmdir()
    (root / "dir").symlink_to(outside)
    with pytest.raises(ConflictError) as refused:
        await kept.use.restores.path(
            LOCAL_ACTOR, project.id, first, b"workspace/dir/file", is_forced=False
        )
    assert refused.value.code == "path_in_the_way"
    assert not list(outside.iterdir())
    # The control: a naive write by path does go there.
    (root / "dir/file").write_text("escaped")
    assert [one.name for one in outside.iterdir()] == ["file"]


async def test_while_work_runs_it_must_be_asked_for(kept: Kept) -> None:
    """A restore is refused while a process runs; forced, a path changes under it, all of it stops it first."""
    project = await kept.world.project()
    first = await kept.saved(project, one="1")
    (Path(project.path) / "one").write_text("2")
    ran = await kept.world.services.processes.exec(
        LOCAL_ACTOR, project.id, ["sh", "-c", "sleep 1000"]
    )
    use = kept.use.restores
    for call in (
        use.all_of(LOCAL_ACTOR, project.id, first, is_forced=False),
        use.path(LOCAL_ACTOR, project.id, first, b"workspace/one", is_forced=False),
    ):
        with pytest.raises(ConflictError) as refused:
            await call
        assert refused.value.code == "project_busy"
    assert (Path(project.path) / "one").read_text() == "2"
    await use.path(LOCAL_ACTOR, project.id, first, b"workspace/one", is_forced=True)
    assert (Path(project.path) / "one").read_text() == "1"
    assert await kept.world.services.leases.of(project.id)
    (Path(project.path) / "one").write_text("3")
    await use.all_of(LOCAL_ACTOR, project.id, first, is_forced=True)
    assert (Path(project.path) / "one").read_text() == "1"
    ended = await kept.world.services.processes.get(LOCAL_ACTOR, ran.id)
    assert ended.completed_at is not None


async def test_a_worktree_comes_back(kept: Kept) -> None:
    """An attempt's worktree that was cleaned is there again, as git sees it, and the attempt can go on."""
    project = await kept.world.project()
    attempt = await kept.world.attempt(project, "echo work > file; git add file")
    await kept.world.over(attempt)
    await kept.idle(project)
    checkpoint = await kept.saved(project)
    services = kept.world.services
    found = await services.attempts.get(LOCAL_ACTOR, attempt.id)
    assert found.worktree is not None
    await kept.run(
        project,
        f"git worktree unlock {found.worktree}; git worktree remove --force {found.worktree}",
    )
    there = Path(project.path) / found.worktree.removeprefix("/workspace/")
    assert not there.exists()
    await kept.use.restores.worktree(
        LOCAL_ACTOR, project.id, checkpoint, attempt.id, is_forced=False
    )
    assert (there / "file").read_text() == "work\n"
    status = await services.processes.exec(
        LOCAL_ACTOR, project.id, ["sh", "-c", f"cd {found.worktree} && git status --short --branch"]
    )
    assert (await kept.world.printed(status)).startswith(b"## " + found.branch.encode())


async def test_a_fork_is_a_project_of_its_own(kept: Kept) -> None:
    """It is there at once, wakes with the files of the checkpoint, and outlives its source."""
    project = await kept.world.project(setup_script="true")
    first = await kept.saved(project, one="1")
    await kept.saved(project, one="2")
    fork = await kept.use.forks.make(LOCAL_ACTOR, project.id, first, "experiment")
    assert (fork.phase, fork.state_reason, fork.setup_script) == (
        Phase.ARCHIVED,
        "forked",
        "true",
    )
    assert not Path(fork.path).exists()
    await kept.run(fork, "test $(cat one) = 1 && echo 3 > one")
    await kept.saved(fork)
    assert (Path(project.path) / "one").read_text() == "2"
    await kept.world.services.projects.delete(LOCAL_ACTOR, project.id)
    await kept.use.archives.forget(project)
    seen = await kept.use.upkeep.verify(fork, read_data=True)
    assert (seen.problems, seen.checkpoints) == ([], 2)
    await kept.use.restores.all_of(LOCAL_ACTOR, fork.id, None, is_forced=False)
    assert (Path(fork.path) / "one").read_text() == "3\n"
    assert await kept.use.archives.checkpoints.records(place(fork)) != b""


async def test_a_fork_is_recovered_without_its_source(kept: Kept, tmp_path: Path) -> None:
    """After the loss of the machine a fork comes back from the store, though its source was deleted before."""
    project = await kept.world.project()
    first = await kept.saved(project, one="1")
    fork = await kept.use.forks.make(LOCAL_ACTOR, project.id, first, "experiment")
    await kept.world.services.projects.delete(LOCAL_ACTOR, project.id)
    await kept.use.archives.forget(project)
    other = Checkpoints(
        FilesStore(kept.store), cache=tmp_path / "cache-2", clock=SystemClock(), server="two"
    )
    async with living(tmp_path / "elsewhere", checkpoints=other) as world:
        recoveries = Recoveries(
            checkpoints=other, db=world.db, homes=world.services.homes, clock=SystemClock()
        )
        [found] = await recoveries.recover(is_forced=True)
        assert (found.name, found.outcome) == ("experiment", Outcome.RECOVERED)
        ran = await world.services.processes.exec(LOCAL_ACTOR, fork.id, ["cat", "one"])
        assert await world.printed(ran) == b"1"
    await other.close()


async def test_a_fork_that_fails_leaves_nothing(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is taken, a checkpoint that is not there, a store that goes away: no project, no object."""
    project = await kept.world.project()
    first = await kept.saved(project, one="1")
    use = kept.use.forks
    for call, code in (
        (use.make(LOCAL_ACTOR, project.id, first, project.name), "name_taken"),
        (use.make(LOCAL_ACTOR, project.id, first, "a/b"), "name_path_like"),
        (use.make(LOCAL_ACTOR, project.id, "nothing", "fork"), "checkpoint_not_found"),
        (use.make(STRANGER, project.id, first, "fork"), "project_unknown"),
    ):
        with pytest.raises(AnyonError) as refused:
            await call
        assert refused.value.code == code
    real = FilesStore.put

    def put(self: FilesStore, key: str, data: bytes, **more: Any) -> str:
        if key.endswith("/head") and place(project) not in key:
            raise StoreUnavailableError("it went away")
        return real(self, key, data, **more)

    monkeypatch.setattr(FilesStore, "put", put)
    with pytest.raises(StoreUnavailableError):
        await use.make(LOCAL_ACTOR, project.id, first, "fork")
    monkeypatch.undo()
    assert [one.id for one in await kept.world.services.projects.list(LOCAL_ACTOR)] == [project.id]
    left = FilesStore(kept.store).list("")
    assert {info.key.split("/")[1] for info in left} == {project.id}
    assert (await kept.use.forks.make(LOCAL_ACTOR, project.id, first, "fork")).name == "fork"


async def test_a_fork_that_a_dead_server_began_is_undone(kept: Kept) -> None:
    """The next server finds it as being created, and takes back what is in the database and the store."""
    project = await kept.world.project()
    first = await kept.saved(project, one="1")
    fork = await kept.use.forks.make(LOCAL_ACTOR, project.id, first, "fork")
    await kept.world.db.write(
        project_rows.set_phase, fork.id, Phase.CREATING, fork.created_at, reason="forking"
    )
    reborn = await kept.world.reborn()
    await reborn.services.recover()
    assert await reborn.db.read(project_rows.find, fork.id) is None
    left = FilesStore(kept.store).list("")
    assert {info.key.split("/")[1] for info in left} == {project.id}
    await reborn.end()


def flip(store: Path, project: ProjectId) -> int:
    """Damage one byte in the middle of every pack of a project; return how many there are."""
    packs = [
        path
        for path in store.rglob("*")
        if path.is_file() and "packs+" in path.parts and f"{project}+" in path.parts
    ]
    for pack in packs:
        data = bytearray(pack.read_bytes())
        data[30] ^= 1
        pack.write_bytes(bytes(data))
    return len(packs)


async def test_damage_is_named_and_an_intact_version_offered(kept: Kept) -> None:
    """A restore that meets damage names the file, leaves all in place and says which checkpoint is whole."""
    project = await kept.world.project()
    first = await kept.saved(project, one="1" * 5000)
    store = FilesStore(kept.store)
    before = {info.key for info in store.list(place(project))}
    second = await kept.saved(project, one="2" * 5000, two="2")
    # The records, though they have not changed, are in a new pack of their own: the smaller one.
    pack = max(
        (
            info
            for info in store.list(place(project))
            if "/packs/" in info.key and info.key not in before
        ),
        key=lambda info: info.size_bytes,
    ).key
    data = bytearray(store.get(pack).data)
    data[40] ^= 1
    store.put(pack, bytes(data))
    await kept.saved(project, one="3" * 5000)
    with pytest.raises(DamagedError) as damaged:
        await kept.use.restores.all_of(LOCAL_ACTOR, project.id, second, is_forced=False)
    assert first in damaged.value.hint
    with pytest.raises(DamagedError) as damaged:
        await kept.use.restores.path(
            LOCAL_ACTOR, project.id, second, b"workspace/one", is_forced=False
        )
    assert first in damaged.value.hint
    assert "one" in damaged.value.message
    assert not list((kept.world.home / "restores").iterdir())
    now = await kept.world.services.projects.get(LOCAL_ACTOR, project.id)
    assert now.phase is Phase.STOPPED
    await kept.run(project, "test $(cat one | head -c 1) = 3")
    audit = await kept.use.upkeep.verify(project, read_data=True)
    named = {(one.path, one.intact_id) for some in audit.damaged.values() for one in some}
    assert (b"workspace/one", first) in named


async def test_a_drill_proves_a_restore_and_finds_damage(kept: Kept) -> None:
    """Everything comes back aside and is compared; the date is recorded; damage is an outcome, not an error."""
    project = await kept.world.project()
    upkeep = kept.use.upkeep
    nothing = await upkeep.drill(project)
    assert (nothing.is_proven, nothing.skipped) == (False, "no checkpoint yet")
    await kept.saved(project, one="1" * 5000)
    proven = await upkeep.drill(project)
    assert proven.is_proven
    assert proven.files > 5
    standing = await upkeep.standing(project)
    assert standing.proven_at == proven.at or standing.proven_at is not None
    assert 'anyon_restore_drills_total{outcome="proven"} 1.0' in kept.metrics.text()
    assert "anyon_last_proven_restore_timestamp_seconds NaN" not in kept.metrics.text()
    assert flip(kept.store, project.id)
    failed = await upkeep.drill(project)
    assert not failed.is_proven
    assert failed.problems
    assert 'anyon_restore_drills_total{outcome="failed"} 1.0' in kept.metrics.text()
    assert (await upkeep.standing(project)).proven_at == standing.proven_at
    assert not list((kept.world.home / "restores").iterdir())


async def test_a_drill_is_not_blind(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a restore that loses a file, a byte, a mode or a time is found out."""
    project = await kept.world.project()
    await kept.saved(project, one="1", two="2", three="3", four="4")
    real = Checkpoints.restore

    async def spoilt(self: Checkpoints, *given: Any, **more: Any) -> Any:
        done = await real(self, *given, **more)
        root = given[2]["workspace"]
        (root / "one").unlink()
        (root / "two").write_text("3")
        (root / "three").chmod(0o600)
        os.utime(root / "four", ns=(1, 1))
        (root / "five").touch()
        return done

    monkeypatch.setattr(Checkpoints, "restore", spoilt)
    outcome = await kept.use.upkeep.drill(project)
    found = {problem.split(":")[0] for problem in outcome.problems}
    assert {f"workspace/{name}" for name in ("one", "two", "three", "four", "five")} <= found


async def test_looking_wakes_nothing(kept: Kept) -> None:
    """An archived project's past is listed, read and compared without a file or container of it."""
    project = await kept.world.project()
    first = await kept.saved(project, one="1")
    second = await kept.saved(project, one="2")
    services = kept.world.services
    await services.containers.remove(project.id)
    assert services.archives is not None
    await services.archives.release(project)
    await kept.world.db.write(
        project_rows.set_phase, project.id, Phase.ARCHIVED, project.created_at
    )
    history = kept.use.history
    listing = await history.listing(
        LOCAL_ACTOR, project.id, first, b"workspace", offset=0, limit=100
    )
    assert b"one" in {entry.name for entry in listing.entries}
    changed = await history.changes(LOCAL_ACTOR, project.id, None, second, offset=0, limit=10)
    assert [row.path for row in changed.rows] == [b"workspace/one"]
    text = await history.text_difference(LOCAL_ACTOR, project.id, first, second, b"workspace/one")
    assert "-1" in text.text
    found = await history.file(LOCAL_ACTOR, project.id, second, b"workspace/one")
    assert b"".join([piece async for piece in found.pieces]) == b"2"
    assert (await kept.use.upkeep.standing(project)).usage.checkpoints == 2
    await kept.use.upkeep.collect(project)
    await asyncio.sleep(0)
    now = await services.projects.get(LOCAL_ACTOR, project.id)
    assert now.phase is Phase.ARCHIVED
    assert not Path(project.path).exists()
    assert await kept.world.engine.inspect(project.id) is None
    # One path of it can come back all the same: then, and only then, the rest comes too.
    await kept.use.restores.path(LOCAL_ACTOR, project.id, first, b"workspace/one", is_forced=False)
    assert (Path(project.path) / "one").read_text() == "1"
    # It is called stopped, so the store has it: what was put back too.
    now = await services.projects.get(LOCAL_ACTOR, project.id)
    assert now.phase is Phase.STOPPED
    text = await kept.use.archives.checkpoints.read(
        place(project), None, "workspace/one", limit_bytes=9
    )
    assert text == b"1"


async def test_a_strangers_view(kept: Kept) -> None:
    """Another user is told of every use that there is no such project."""
    project = await kept.world.project()
    first = await kept.saved(project, one="1")
    history, restores = kept.use.history, kept.use.restores
    for call in (
        history.list(STRANGER, project.id),
        history.get(STRANGER, project.id, first),
        history.entry(STRANGER, project.id, first, b"workspace"),
        history.listing(STRANGER, project.id, first, b"", offset=0, limit=1),
        history.file(STRANGER, project.id, first, b"workspace/one"),
        history.archive(STRANGER, project.id, first, b""),
        restores.all_of(STRANGER, project.id, first, is_forced=True),
        restores.path(STRANGER, project.id, first, b"workspace/one", is_forced=True),
        kept.use.upkeep.find(STRANGER, project.id),
    ):
        with pytest.raises(NotFoundError) as refused:
            await call
        assert refused.value.code == "project_unknown"
