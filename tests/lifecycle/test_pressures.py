"""Memory: a place for each container, and projects that go when it runs short."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from tests.docker_fixtures import new_engine, socket_or_skip
from tests.lifecycle.conftest import Life, begun, run

from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.capacity import ALLOWANCE_BYTES, MemoryState, Thresholds
from anyon.domain.errors import OverLimitError
from anyon.domain.states import Phase
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.engine import Engine, Limits
from anyon.lifecycle.pressures import MemoryPressure, read_memory

MINUTE = timedelta(minutes=1)
MIB = 2**20


class Machine:
    """What the kernel says, as the test has it."""

    def __init__(self) -> None:
        self.stalled = 0.0

    def read(self) -> MemoryState:
        """Return it."""
        return MemoryState(stalled_percent=self.stalled)


def watch(life: Life, machine: Machine) -> MemoryPressure:
    """Return the loop under test."""
    return MemoryPressure(relief=life.reconciler._steps, read=machine.read, thresholds=Thresholds())


async def reasons(life: Life, project_id: str) -> list[tuple[str, str, str]]:
    """Return a project's events."""
    events = await life.world.services.outlooks.events(LOCAL_ACTOR, project_id)
    return [(event.kind, event.reason, event.detail) for event in events]


async def test_under_pressure_sleepers_go_one_by_one(tmp_path: Path) -> None:
    """Frozen ones first, the longest idle of them first, with an event and its reason; held ones stay."""
    async with begun(tmp_path) as life:
        machine = Machine()
        loop = watch(life, machine)
        old, held, young = [await life.world.project(name) for name in ("old", "held", "young")]
        for project in (old, held, young):
            await life.clock.advance(MINUTE)
            await run(life, project, "true")
        await life.pass_time(6 * MINUTE)
        running = await life.world.project("running")
        await life.clock.advance(2 * MINUTE)
        async with life.world.services.containers.keep(held.id, holder="h", reason="test"):
            await loop.tick()
            assert await life.phase(old) is Phase.FROZEN  # there is no pressure: nothing happens
            machine.stalled = 60.0
            seen = []
            for _ in range(4):
                await loop.tick()
                seen.append([await life.phase(one) for one in (old, young, running, held)])
        assert seen[0] == [Phase.STOPPED, Phase.FROZEN, Phase.RUNNING, Phase.FROZEN]
        assert seen[1] == [Phase.STOPPED, Phase.STOPPED, Phase.RUNNING, Phase.FROZEN]
        assert seen[2] == [Phase.STOPPED, Phase.STOPPED, Phase.STOPPED, Phase.FROZEN]
        assert seen[3] == seen[2]
        stopping = (
            "phase.stopping",
            "memory_pressure",
            "programs waited for memory 60 % of ten seconds",
        )
        assert stopping in await reasons(life, old.id)
        assert await run(life, old, "echo", "back") == b"back\n"


async def test_an_active_project_is_not_taken_for_a_sleeper(tmp_path: Path) -> None:
    """One that worked within the last minute stays, though it holds no lease at this moment."""
    async with begun(tmp_path) as life:
        machine = Machine()
        machine.stalled = 99.0
        project = await life.world.project("busy")
        await run(life, project, "true")
        await life.clock.advance(timedelta(seconds=30))
        await watch(life, machine).tick()
        assert await life.phase(project) is Phase.RUNNING


async def test_memory_is_a_limit_like_places(tmp_path: Path) -> None:
    """By their limits only so many fit: a frozen one makes room; with none the wait ends in no_capacity."""
    limits = Limits(memory_bytes=100 * MIB)
    async with begun(tmp_path, max_memory=250 * MIB, limits=limits) as life:
        one, two = await life.world.project("one"), await life.world.project("two")
        await life.clock.advance(MINUTE)
        await run(life, two, "true")
        await life.pass_time(6 * MINUTE)
        three = await life.world.project("three")
        assert await life.phase(one) is Phase.STOPPED
        async with AsyncExitStack() as held:
            for project in (two, three):
                hold = life.world.services.containers.awake(project, holder="h", reason="test")
                await held.enter_async_context(hold)
            asking = asyncio.create_task(run(life, one, "true"))
            async with asyncio.timeout(60):
                while not asking.done():
                    await life.clock.advance(timedelta(seconds=10))
                    await asyncio.sleep(0.01)
            with pytest.raises(OverLimitError) as told:
                asking.result()
        assert (told.value.code, "max_memory" in told.value.message) == ("no_capacity", True)


async def test_without_limits_of_their_own_use_is_measured(tmp_path: Path) -> None:
    """Where a container has no limit, what it uses counts, and a start by an allowance."""
    async with begun(tmp_path, max_memory=ALLOWANCE_BYTES + 64 * MIB) as life:
        one, two = await life.world.project("one"), await life.world.project("two")
        assert {await life.phase(one), await life.phase(two)} == {Phase.RUNNING}
        services = life.world.services
        eat = "x=$(yes | head -c 90000000); echo on; sleep 1000"
        process = await services.processes.exec(LOCAL_ACTOR, one.id, ["sh", "-c", eat])
        async for chunk in services.processes.follow(LOCAL_ACTOR, process.id):
            if b"on" in chunk.data:
                break
        asking = asyncio.create_task(life.world.project("three"))
        async with asyncio.timeout(60):
            while not asking.done():
                await life.clock.advance(timedelta(seconds=10))
                await asyncio.sleep(0.01)
        with pytest.raises(OverLimitError):
            asking.result()
        await services.processes.kill(LOCAL_ACTOR, process.id)


@pytest.mark.parametrize("kind", ["bubblewrap", pytest.param("docker", marks=pytest.mark.docker)])
async def test_a_real_container_goes_under_pressure(tmp_path: Path, kind: str) -> None:
    """On a real engine the frozen container is stopped and saved, and its work is there at the next wake."""
    engine: Engine = (
        BubblewrapEngine(tmp_path / "engine", hidden=[tmp_path])
        if kind == "bubblewrap"
        else new_engine(socket_or_skip())
    )
    owner = (1000, 1000) if kind == "docker" else None
    async with begun(tmp_path, engine=engine, files_owner=owner) as life:
        machine = Machine()
        machine.stalled = 60.0
        project = await life.world.project("real")
        await run(life, project, "sh", "-c", "echo kept > file")
        await life.pass_time(6 * MINUTE)
        assert await life.phase(project) is Phase.FROZEN
        await watch(life, machine).tick()
        assert await life.phase(project) is Phase.STOPPED
        assert await life.state(project) == "stopped"
        assert await run(life, project, "cat", "file") == b"kept\n"
        await life.world.services.containers.remove(project.id)


def test_what_the_kernel_says_is_read(tmp_path: Path) -> None:
    """Both files, either missing, and this machine's own."""
    assert read_memory(tmp_path) == MemoryState()
    (tmp_path / "pressure").mkdir()
    text = "some avg10=12.50 avg60=1.00 avg300=0.10 total=9\nfull avg10=3.00 avg60=0 avg300=0 total=1\n"
    (tmp_path / "pressure" / "memory").write_text(text)
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:  77 kB\n")
    assert read_memory(tmp_path) == MemoryState(stalled_percent=12.5, available_bytes=77 * 1024)
    assert (read_memory().available_bytes or 0) > 0
