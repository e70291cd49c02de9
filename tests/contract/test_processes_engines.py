"""Durable processes keep their promises over every engine."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.docker_fixtures import UID, new_engine, socket_or_skip

from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.docker import DockerEngine
from anyon.engines.memory import MemoryEngine
from anyon.testing.engine_trials import MakeSpec, spec_maker
from anyon.testing.process_contract import ProcessContract


class TestOverMemory(ProcessContract):
    """Over the engine in memory."""

    @pytest.fixture
    async def engine(self, tmp_path: Path) -> AsyncIterator[MemoryEngine]:
        """One that is closed after the test."""
        engine = MemoryEngine([tmp_path])
        yield engine
        await engine.close()

    @pytest.fixture
    def make_spec(self, tmp_path: Path) -> MakeSpec:
        """Specs of new projects."""
        return spec_maker(tmp_path)


class TestOverBubblewrap(ProcessContract):
    """Over the embedded engine."""

    @pytest.fixture
    async def engine(self, tmp_path: Path) -> AsyncIterator[BubblewrapEngine]:
        """One that is closed after the test."""
        engine = BubblewrapEngine(tmp_path / "engine", hidden=[tmp_path])
        yield engine
        await engine.close()

    @pytest.fixture
    def make_spec(self, tmp_path: Path) -> MakeSpec:
        """Specs of new projects."""
        return spec_maker(tmp_path)


@pytest.mark.docker
class TestOverDocker(ProcessContract):
    """Over docker, as a user that is not root."""

    @pytest.fixture
    async def engine(self) -> AsyncIterator[DockerEngine]:
        """An engine of a home of its own, emptied afterwards."""
        engine = new_engine(socket_or_skip())
        yield engine
        for info in await engine.list():
            await engine.remove(info.project)
        await engine.close()

    @pytest.fixture
    def make_spec(self, tmp_path: Path) -> MakeSpec:
        """Specs whose directories are the container user's."""
        return spec_maker(tmp_path, owner=UID)
