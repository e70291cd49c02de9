"""Projects on a mounted bucket, over a mounter without a kernel: reached, refused, restarted, never lost."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from anyon.clock import SystemClock
from anyon.db import events as event_rows
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.domain.errors import UnavailableError
from anyon.domain.mounts import MountState
from anyon.domain.states import Phase
from anyon.engines.memory import MemoryEngine
from anyon.lifecycle.mounts import MountWatch
from anyon.services.mounts import PLACE, Mounts
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.mounts.mounter import MountSpec
from anyon.storage.mounts.profiles import PROFILES
from anyon.testing.mounters import FolderMounter
from anyon.testing.worlds import World, living


@dataclass(slots=True)
class Mounted:
    """A server whose new projects lie on a mount; ``devices`` is what containers show of it."""

    world: World
    mounter: FolderMounter
    mounts: Mounts
    watch: MountWatch
    devices: dict[str, str]

    async def events(self, project: Project) -> list[str]:
        """Return the kinds of what happened to a project."""
        found = await self.world.db.read(event_rows.of_project, LOCAL_ACTOR.user_id, project.id)
        return [event.kind for event in found]

    async def phase(self, project: Project) -> Phase:
        """Return a project's recorded phase."""
        return (await self.world.services.projects.get(LOCAL_ACTOR, project.id)).phase


@asynccontextmanager
async def mounted(
    tmp_path: Path, *, is_set: bool = True, is_external: bool = False
) -> AsyncIterator[Mounted]:
    """Give such a server."""
    home = tmp_path / "home"
    mounter = FolderMounter(tmp_path / "bucket")
    spec = MountSpec(
        bucket="b",
        place=home / PLACE,
        work=home / "mount",
        profile=PROFILES["plan"],
        uid=os.getuid(),
        gid=os.getgid(),
    )
    devices: dict[str, str] = {}
    clock = SystemClock()
    mounts = Mounts(
        place=spec.place,
        clock=clock,
        mounter=mounter if is_set else None,
        spec=spec if is_set else None,
        is_external=is_external,
        device_of=lambda info: devices.get(info.project),
    )
    checkpoints = Checkpoints(MemoryStore(), cache=tmp_path / "cache", clock=clock)
    engine = MemoryEngine(hidden=[home])
    parts = {"mounts": mounts, "is_on_mount": True, "checkpoints": checkpoints}
    async with living(home, engine=engine, **parts) as world:
        watch = MountWatch(
            db=world.db,
            engine=engine,
            mounts=mounts,
            containers=world.services.containers,
            leases=world.services.leases,
            clock=clock,
        )
        yield Mounted(world, mounter, mounts, watch, devices)
    await checkpoints.close()


async def test_a_new_project_lies_on_the_mount(tmp_path: Path) -> None:
    """``<user>/<project>`` on the mount is the project's directory; git has what it needs there."""
    async with mounted(tmp_path) as one:
        project = await one.world.project()
        assert Path(project.path) == one.mounts.place / project.user_id / project.id
        config = (Path(project.path) / ".git/config").read_text().lower()
        assert "filemode = false" in config
        assert "createobject = rename" in config
        attempt = await one.world.attempt(project, "echo hello >new")
        await one.world.over(attempt)
        worktrees = list((Path(project.path) / ".worktrees").iterdir())
        assert any((tree / "new").exists() for tree in worktrees)


async def test_nothing_is_done_beneath_a_mount_that_is_gone(tmp_path: Path) -> None:
    """While the mount is silent or another's to mend, work is refused, and nothing is written beneath it."""
    async with mounted(tmp_path, is_external=True) as one:
        await one.mounter.mount(one.mounts.spec)  # type: ignore[arg-type]  # set above
        project = await one.world.project()
        await one.world.services.containers.halt(project.id)
        one.mounter.crash()
        await one.watch.tick()
        with pytest.raises(UnavailableError) as refused:
            await one.world.services.containers.ensure(project)
        assert refused.value.code == "mount_unavailable"
        with pytest.raises(UnavailableError):
            await one.world.services.projects.delete(LOCAL_ACTOR, project.id)
        assert not list(one.mounts.place.iterdir())
        assert (one.mounter.bucket / project.user_id / project.id / ".git").is_dir()


async def test_a_silent_bucket_is_waited_for(tmp_path: Path) -> None:
    """A bucket that does not answer is told as an event, is not mounted anew, and work goes on after it."""
    async with mounted(tmp_path) as one:
        project = await one.world.project()
        life = one.mounts.last.device
        one.mounter.is_silent = True
        await one.watch.tick()
        assert one.mounts.last.state is MountState.SILENT
        with pytest.raises(UnavailableError):
            await one.mounts.require(project)
        one.mounter.is_silent = False
        await one.watch.tick()
        await one.mounts.require(project)
        assert one.mounts.last.device == life
        kinds = await one.events(project)
        assert [kind for kind in kinds if kind.startswith("mount.")] == [
            "mount.silent",
            "mount.alive",
        ]


async def test_a_dead_mount_is_mended_and_its_containers_restarted(tmp_path: Path) -> None:
    """After a crash it is mounted anew; what shows the dead one is stopped, what is held starts again."""
    async with mounted(tmp_path) as one:
        held, idle, fresh = [await one.world.project(name) for name in ("held", "idle", "fresh")]
        old = one.mounts.last.device
        assert old is not None
        one.devices |= {held.id: old, idle.id: old, fresh.id: "0:2"}
        one.mounter.crash()
        async with one.world.services.leases.hold(held.id, holder="test", reason="hold"):
            await one.watch.tick()
            assert one.mounts.last.state is MountState.ALIVE
            assert one.mounts.last.device != old
            assert await one.phase(held) is Phase.RUNNING
            assert await one.world.services.containers.is_running(held.id)
        assert await one.phase(idle) is Phase.STOPPED_UNSAVED
        assert not await one.world.services.containers.is_running(idle.id)
        # The control: one that shows the new mount is left alone.
        assert await one.phase(fresh) is Phase.RUNNING
        assert "mount.dead" in await one.events(held)
        assert "mount.alive" in await one.events(held)


async def test_work_restarts_what_shows_a_dead_mount(tmp_path: Path) -> None:
    """Whoever needs the container before the loop has come round gets one that shows the living mount."""
    async with mounted(tmp_path) as one:
        project = await one.world.project()
        old = one.mounts.last.device
        assert old is not None
        one.devices[project.id] = old
        one.mounter.crash()
        await one.mounts.mend()
        before = await one.world.engine.inspect(project.id)
        await one.world.services.containers.ensure(project)
        after = await one.world.engine.inspect(project.id)
        assert before is not None
        assert after is not None
        assert after.started_at != before.started_at


async def test_a_project_on_a_mount_that_is_not_set(tmp_path: Path) -> None:
    """A server without a mount says so for what lies there: it is neither made anew nor restored beside it."""
    async with mounted(tmp_path, is_set=False) as one:
        with pytest.raises(UnavailableError) as refused:
            await one.world.project()
        assert refused.value.code == "mount_not_set"
        assert not one.mounts.place.exists() or not list(one.mounts.place.iterdir())


async def test_a_deleted_project_comes_back_onto_the_mount(tmp_path: Path) -> None:
    """Deleting takes the files off the mount after they are saved; undoing brings them back there."""
    async with mounted(tmp_path) as one:
        project = await one.world.project()
        (Path(project.path) / "kept").write_text("1")
        await one.world.services.projects.delete(LOCAL_ACTOR, project.id)
        assert not Path(project.path).exists()
        await one.world.services.deletions.undo(LOCAL_ACTOR, project.id)
        back = await one.world.services.projects.get(LOCAL_ACTOR, project.id)
        await one.world.services.containers.ensure(back)
        assert (Path(back.path) / "kept").read_text() == "1"
