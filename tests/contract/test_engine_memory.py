"""The memory engine keeps every promise of an engine."""

from datetime import timedelta

import pytest

from anyon.engines.memory import MemoryEngine
from anyon.engines.pauses import PausingEngine
from anyon.engines.tracing import TracedEngine
from anyon.testing.engine_contract import EngineContract, spec_maker


class TestMemory(EngineContract):
    """As the user that runs the tests."""

    @pytest.fixture
    async def engine(self):
        """One that is closed after the test."""
        engine = MemoryEngine()
        yield engine
        await engine.close()


class TestPausing(EngineContract):
    """What can be paused keeps every promise too."""

    @pytest.fixture
    async def engine(self):
        """One that is closed after the test."""
        engine = PausingEngine(MemoryEngine())
        yield engine
        await engine.close()


class TestTraced(EngineContract):
    """What makes spans of an engine's calls changes none of them."""

    @pytest.fixture
    async def engine(self):
        """One that is closed after the test."""
        engine = TracedEngine(MemoryEngine())
        yield engine
        await engine.close()


async def test_its_life_needs_no_process(tmp_path):
    """Thousands of steps cost nothing: no sandbox is started before a program is opened."""
    engine = MemoryEngine()
    spec = spec_maker(tmp_path)()
    for _ in range(2000):
        await engine.ensure(spec)
        await engine.start(spec.project)
        await engine.freeze(spec.project)
        await engine.stop(spec.project, grace=timedelta(seconds=1))
    info = await engine.inspect(spec.project)
    assert info is not None
    assert info.pid is None
    await engine.close()
    assert await engine.list() == []
