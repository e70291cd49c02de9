"""A pause holds a container still, keeps others out meanwhile, and never lasts."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from anyon.domain import layout
from anyon.domain.ids import ProjectId
from anyon.engines.engine import Command, ContainerSpec, ContainerState, Mount
from anyon.engines.memory import MemoryEngine
from anyon.engines.pauses import PauseFailedError, PausingEngine

PROJECT = ProjectId("p1")


@pytest.fixture
async def inner(tmp_path: Path) -> AsyncIterator[MemoryEngine]:
    """An engine with one running container."""
    engine = MemoryEngine()
    for name in ("workspace", "home", "run"):
        (tmp_path / name).mkdir()
    await engine.ensure(
        ContainerSpec(
            project=PROJECT,
            mounts=(
                Mount(source=tmp_path / "workspace", target=layout.WORKSPACE),
                Mount(source=tmp_path / "home", target=layout.HOME),
                Mount(source=tmp_path / "run", target=layout.RUN),
            ),
            system=tmp_path / "system",
        )
    )
    await engine.start(PROJECT)
    yield engine
    await engine.close()


async def state(engine: MemoryEngine | PausingEngine) -> ContainerState:
    """Return the container's state."""
    info = await engine.inspect(PROJECT)
    assert info is not None
    return info.state


async def test_who_opens_meanwhile_waits(inner: MemoryEngine) -> None:
    """Inside the pause the container is frozen, though nobody sees it so; an open comes after it."""
    engine = PausingEngine(inner)
    async with engine.pause(PROJECT):
        assert await state(inner) is ContainerState.FROZEN
        assert await state(engine) is ContainerState.RUNNING
        opening = asyncio.create_task(engine.open(PROJECT, Command(argv=["true"])))
        await asyncio.sleep(0.05)
        assert not opening.done()
    stream = await opening
    assert await stream.wait() == 0
    await stream.close()
    assert await state(inner) is ContainerState.RUNNING


async def held_until_let_go(engine: PausingEngine, inner: MemoryEngine) -> None:
    """Pause, and stay in the pause until the container runs again."""
    async with engine.pause(PROJECT):
        while await state(inner) is ContainerState.FROZEN:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)


async def test_a_pause_that_takes_too_long_is_cut_and_says_so(inner: MemoryEngine) -> None:
    """The container runs on after the bound, and what was done in the pause is not trusted."""
    engine = PausingEngine(inner, longest=timedelta(milliseconds=50))
    with pytest.raises(PauseFailedError) as cut:
        await held_until_let_go(engine, inner)
    assert cut.value.code == "pause_too_long"
    async with engine.pause(PROJECT):
        assert await state(inner) is ContainerState.FROZEN


async def test_what_does_not_run_is_left_so(inner: MemoryEngine) -> None:
    """A frozen container is frozen still after a pause; a failure inside lets it go as well."""
    engine = PausingEngine(inner)
    await engine.freeze(PROJECT)
    async with engine.pause(PROJECT):
        pass
    assert await state(engine) is ContainerState.FROZEN
    await engine.thaw(PROJECT)
    with pytest.raises(RuntimeError):
        async with engine.pause(PROJECT):
            raise RuntimeError
    assert await state(inner) is ContainerState.RUNNING
