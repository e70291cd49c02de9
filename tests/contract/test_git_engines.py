"""Repositories over the engines and the durable processes, as they are in service."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.docker_fixtures import UID, new_engine, socket_or_skip

from anyon.clock import SystemClock
from anyon.domain.layout import RUN
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.engine import ContainerSpec, Engine
from anyon.engines.memory import MemoryEngine
from anyon.processes.durable import DurableProcesses
from anyon.testing.engine_trials import GRACE, spec_maker
from anyon.testing.git_attachments import AttachmentsContract
from anyon.testing.git_contract import RepositoryContract
from anyon.testing.git_merges import MergesContract
from anyon.testing.git_spares import SparesContract
from anyon.testing.git_trials import Trial


async def _running(engine: Engine, spec: ContainerSpec) -> AsyncIterator[Trial]:
    """Give a trial in a running container, which is removed afterwards."""
    (run,) = [mount.source for mount in spec.mounts if mount.target == RUN]
    processes = DurableProcesses(engine, lambda _: run, SystemClock())
    await engine.ensure(spec)
    await engine.start(spec.project)
    try:
        yield Trial(processes=processes, project=spec.project)
    finally:
        await processes.close()
        await engine.stop(spec.project, grace=GRACE)
        await engine.remove(spec.project)
        await engine.close()


class TestOverMemory(RepositoryContract):
    """All promises, over the engine in memory."""

    @pytest.fixture
    async def trial(self, tmp_path: Path) -> AsyncIterator[Trial]:
        """A new project in a running container."""
        async for trial in _running(MemoryEngine([tmp_path]), spec_maker(tmp_path)()):
            yield trial


class TestOverBubblewrap(RepositoryContract):
    """All promises, over the embedded engine."""

    @pytest.fixture
    async def trial(self, tmp_path: Path) -> AsyncIterator[Trial]:
        """A new project in a running container."""
        engine = BubblewrapEngine(tmp_path / "engine", hidden=[tmp_path])
        async for trial in _running(engine, spec_maker(tmp_path)()):
            yield trial


@pytest.mark.docker
class TestOverDocker(SparesContract, MergesContract, AttachmentsContract):
    """What touches files most, over docker, as a user that is not root."""

    @pytest.fixture
    async def trial(self, tmp_path: Path) -> AsyncIterator[Trial]:
        """A new project in a running container."""
        engine = new_engine(socket_or_skip())
        async for trial in _running(engine, spec_maker(tmp_path, owner=UID)()):
            yield trial
