"""Projects in which something happens are saved at intervals; others cost nothing, and none waits for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from anyon.api.past_shapes import activity
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.domain.errors import UnavailableError
from anyon.domain.states import Phase
from anyon.lifecycle.checkpointer import LONG, SHORT_LANE, Checkpointer
from anyon.services.activities import Activity
from anyon.services.archives import Archives
from anyon.services.observations import unsaved_for
from anyon.services.progresses import EVERY
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.records import Checkpoint
from anyon.testing.clocks import FakeClock
from anyon.testing.worlds import World, living, until

MINUTE = timedelta(minutes=1)


class Watched:
    """Archives whose saves a test sees, holds up and lets fail."""

    def __init__(self, archives: Archives, clock: FakeClock) -> None:
        self._archives = archives
        self._clock = clock
        self.saved: list[tuple[str, str]] = []
        self.fails: set[str] = set()
        self.gates: dict[str, asyncio.Event] = {}
        self.lengths: dict[str, timedelta] = {}

    @property
    def saved_steady(self) -> dict:
        """When each project was last saved."""
        return dict(self._archives.saved_steady)

    async def save(self, project: Project, *, reason: str) -> Checkpoint:
        """Save it, as the test wants it."""
        self.saved.append((project.name, reason))
        if project.name in self.fails:
            raise UnavailableError("the store is away", code="store_unavailable")
        if project.name in self.gates:
            await self.gates[project.name].wait()
        found = await self._archives.save(project, reason=reason)
        await self._clock.advance(self.lengths.get(project.name, timedelta(0)))
        return found


@dataclass
class Scene:
    """A server whose checkpointer a test ticks."""

    world: World
    clock: FakeClock
    archives: Watched
    loop: Checkpointer
    holding: list[ExitStack] = field(default_factory=list)

    async def project(self, name: str) -> Project:
        """Make a project that runs, a second ago."""
        project = await self.world.project(name)
        await self.clock.advance(timedelta(seconds=1))
        await self.world.services.containers.record(project.id, Phase.RUNNING, reason="test")
        return project

    def hold(self, project: Project) -> ExitStack:
        """Keep it awake until what this returns is closed."""
        stack = ExitStack()
        stack.enter_context(self.world.services.leases.guard(project.id, holder="x", reason="test"))
        self.holding.append(stack)
        return stack

    async def work(self, project: Project) -> None:
        """Do something in it."""
        process = await self.world.services.processes.exec(
            LOCAL_ACTOR, project.id, ["touch", "new"]
        )
        await self.world.printed(process)


@asynccontextmanager
async def scene(tmp_path: Path, interval: timedelta = MINUTE) -> AsyncIterator[Scene]:
    """Give a server with a fake clock."""
    clock = FakeClock()
    checkpoints = Checkpoints(MemoryStore(), cache=tmp_path / "cache", clock=clock)
    async with living(tmp_path / "home", clock=clock, checkpoints=checkpoints) as world:
        assert world.services.archives is not None
        watched = Watched(world.services.archives, clock)
        loop = Checkpointer(
            db=world.db,
            archives=watched,  # type: ignore[arg-type] - the part of it that the loop uses
            leases=world.services.leases,
            homes=world.services.homes,
            clock=clock,
            interval=interval,
        )
        made = Scene(world, clock, watched, loop)
        yield made
        for stack in made.holding:
            stack.close()
    await checkpoints.close()


async def count(world: World, project: Project) -> int:
    """Return how many checkpoints the project has."""
    assert world.services.checkpoints is not None
    return len(await world.services.checkpoints.history.list(LOCAL_ACTOR, project.id))


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.FROZEN])
async def test_only_what_changed_is_saved(tmp_path: Path, phase: Phase) -> None:
    """Activity since the last save brings one checkpoint, in a frozen project too; idleness none."""
    async with scene(tmp_path, timedelta(0)) as at:
        project = await at.project("demo")
        await at.world.services.containers.record(project.id, phase, reason="test")
        await at.loop.tick()
        assert await count(at.world, project) == 1
        await at.clock.advance(MINUTE)
        await at.loop.tick()
        assert await count(at.world, project) == 1
        await at.world.services.containers.record(project.id, Phase.RUNNING, reason="test")
        await at.work(project)
        await at.clock.advance(MINUTE)
        await at.loop.tick()
        assert await count(at.world, project) == 2


async def test_saves_are_coalesced(tmp_path: Path) -> None:
    """However often somebody looks, and whoever asked for the last save, an interval passes between two."""
    async with scene(tmp_path) as at:
        project = await at.project("demo")
        await at.loop.tick()
        assert len(at.archives.saved) == 1
        await at.work(project)
        holding = at.hold(project)
        for _ in range(5):
            await at.clock.advance(timedelta(seconds=5))
            await at.loop.tick()
        assert len(at.archives.saved) == 1
        assert at.world.services.checkpoints is not None
        await at.world.services.checkpoints.take(LOCAL_ACTOR, project.id)
        await at.clock.advance(timedelta(seconds=40))  # more than a minute after the first save
        await at.loop.tick()
        assert len(at.archives.saved) == 1
        await at.clock.advance(timedelta(seconds=20))  # a minute after the one that was asked for
        await at.loop.tick()
        assert len(at.archives.saved) == 2
        holding.close()


async def test_the_end_of_work_brings_a_save_at_once(tmp_path: Path) -> None:
    """When the last that held a project awake lets go, it is saved without waiting for the interval."""
    async with scene(tmp_path) as at:
        project = await at.project("demo")
        holding = at.hold(project)
        await at.loop.tick()
        await at.clock.advance(timedelta(seconds=5))
        await at.loop.tick()
        assert at.archives.saved == [("demo", "interval")]
        holding.close()
        await at.loop.tick()
        await at.clock.advance(timedelta(seconds=5))
        await at.loop.tick()
        await at.loop.tick()
        assert at.archives.saved == [("demo", "interval"), ("demo", "work_ended")]


async def test_who_waits_longest_is_first(tmp_path: Path) -> None:
    """Projects are saved in the order in which they were last saved, each once a tick."""
    async with scene(tmp_path) as at:
        names = ["one", "two", "three"]
        projects = [await at.project(name) for name in names]
        for project in (projects[2], projects[0], projects[1]):
            await at.archives.save(project, reason="interval")
            await at.clock.advance(timedelta(seconds=1))
        at.archives.saved.clear()
        await at.clock.advance(2 * MINUTE)
        for project in projects:
            at.hold(project)
        await at.loop.tick()
        assert [name for name, _ in at.archives.saved] == ["three", "one", "two"]


async def test_a_long_save_keeps_nobody_waiting(tmp_path: Path) -> None:
    """While one project's save takes long the short lane saves the others; control: its own lane does not."""
    async with scene(tmp_path) as at:
        large, small = await at.project("large"), await at.project("small")
        at.archives.lengths["large"] = LONG + timedelta(seconds=1)
        await at.loop.tick()
        for project in (large, small):
            at.hold(project)
        await at.clock.advance(2 * MINUTE)
        at.archives.saved.clear()
        at.archives.gates["large"] = asyncio.Event()
        await at.loop.tick(SHORT_LANE)
        assert at.archives.saved == [("small", "interval")]
        long_lane = asyncio.create_task(at.loop.tick())

        async def has_begun() -> bool:
            return ("large", "interval") in at.archives.saved

        await until(has_begun)
        for turn in range(3):
            await at.clock.advance(MINUTE)
            await at.loop.tick(SHORT_LANE)
            assert at.archives.saved.count(("small", "interval")) == turn + 2
        assert at.archives.saved.count(("large", "interval")) == 1
        assert not long_lane.done()
        at.archives.gates["large"].set()
        await long_lane


async def test_failures_are_tried_again_less_and_less_often(tmp_path: Path) -> None:
    """After each failure the wait doubles, to a bound; the age stays visible; success ends it."""
    async with scene(tmp_path) as at:
        project = await at.project("demo")
        await at.loop.tick()
        at.hold(project)
        await at.clock.advance(MINUTE)
        at.archives.fails.add("demo")
        at.archives.saved.clear()
        tried = []
        for second in range(0, 1200, 5):
            before = len(at.archives.saved)
            await at.loop.tick()
            if len(at.archives.saved) > before:
                tried.append(second)
            await at.clock.advance(timedelta(seconds=5))
        waits = [later - earlier for earlier, later in pairwise(tried)]
        assert waits == [10, 20, 40, 80, 160, 320]
        assert at.world.services.archives is not None
        age = unsaved_for(
            project,
            saved_at=at.world.services.archives.saved_at[project.id],
            is_held=True,
            began=project.created_at,
            now=at.clock.now(),
        )
        assert age > timedelta(minutes=20)
        at.archives.fails.clear()
        await at.clock.advance(timedelta(minutes=10))
        at.archives.saved.clear()
        for _ in range(3):
            await at.loop.tick()
            await at.clock.advance(MINUTE)
        assert len(at.archives.saved) == 3


async def test_a_long_save_tells_how_far_it_is(tmp_path: Path) -> None:
    """A save that takes long shows in the services and among the project's events, until it is over."""
    clock = FakeClock()
    gate = asyncio.Event()
    checkpoints = Checkpoints(MemoryStore(), cache=tmp_path / "cache", clock=clock)

    @asynccontextmanager
    async def pause(_: object) -> AsyncIterator[None]:
        await gate.wait()
        yield

    async with living(
        tmp_path / "home", clock=clock, checkpoints=checkpoints, pause=pause
    ) as world:
        archives = world.services.archives
        assert archives is not None
        project = await world.project()
        (Path(project.path) / "large").write_bytes(bytes(3 << 20))
        save = asyncio.create_task(archives.save(project, reason="asked"))

        async def is_told() -> bool:
            return project.id in archives.progresses.under_way

        await until(is_told)

        async def is_recorded() -> bool:
            await clock.advance(EVERY)
            events = await world.services.outlooks.events(LOCAL_ACTOR, project.id)
            details = [event.detail for event in events if event.kind == "checkpoint.progress"]
            return any(" of about " in detail for detail in details if detail)

        await until(is_recorded)
        at = archives.progresses.under_way[project.id]
        shown = activity(Activity("save", clock.now()), at)
        assert 0 < shown.done_bytes <= shown.total_bytes
        assert shown.total_bytes >= 3 << 20
        gate.set()
        await save
        assert project.id not in archives.progresses.under_way
    await checkpoints.close()
