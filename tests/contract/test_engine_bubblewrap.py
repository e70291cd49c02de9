"""The bubblewrap engine keeps every promise of an engine."""

import pytest

from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.cgroups import Hierarchies
from anyon.testing.engine_contract import EngineContract


class TestBubblewrap(EngineContract):
    """With the machine's control groups, as the user that runs the tests."""

    @pytest.fixture
    async def engine(self, tmp_path):
        """One that is closed after the test."""
        engine = BubblewrapEngine(tmp_path / "engine", hidden=[tmp_path])
        yield engine
        await engine.close()


class TestBubblewrapWithoutControlGroups(EngineContract):
    """Where there are none: freezing by signals, numbers from the process table."""

    @pytest.fixture
    async def engine(self, tmp_path):
        """One that is closed after the test."""
        engine = BubblewrapEngine(
            tmp_path / "engine", hidden=[tmp_path], control_groups=Hierarchies()
        )
        yield engine
        await engine.close()
