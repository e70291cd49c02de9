"""The docker engine keeps every promise of the engine's interface."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.docker_fixtures import UID, new_engine, socket_or_skip

from anyon.engines.docker import DockerEngine
from anyon.testing.engine_contract import EngineContract, MakeSpec, spec_maker

pytestmark = pytest.mark.docker


class TestDockerEngine(EngineContract):
    installed_path = "/var/tmp/installed"

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
