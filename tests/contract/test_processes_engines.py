"""Durable processes keep their promises over every engine."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.docker_fixtures import UID, new_engine, socket_or_skip

from anyon.domain.states import ExitReason
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.docker import DockerEngine
from anyon.engines.engine import Limits
from anyon.engines.memory import MemoryEngine
from anyon.testing.engine_trials import PATIENCE, MakeSpec, spec_maker, until
from anyon.testing.process_contract import ProcessContract
from anyon.testing.process_trials import running


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

    async def test_want_of_memory_is_told(self, engine: DockerEngine, make_spec: MakeSpec) -> None:
        """Killed by the kernel for its memory is OOM, once; a KILL by anybody else is a signal."""
        spec = replace(make_spec(), limits=Limits(memory_bytes=64 << 20, pids=64))
        async for trial in running(engine, spec):
            server = trial.server()
            assert (await trial.finish(server, "exit 0")).code == 0
            greedy = "exec perl -e '$x = q(a) x 300_000_000; print length $x'"
            ended = await trial.finish(server, greedy)
            assert (ended.code, ended.reason) == (137, ExitReason.OOM)
            ended = await trial.finish(trial.server(), "kill -KILL $$")
            assert (ended.code, ended.reason) == (137, ExitReason.SIGNALLED)

    async def test_a_full_container_can_be_emptied(
        self, engine: DockerEngine, make_spec: MakeSpec
    ) -> None:
        """Where nothing can be forked any more, what took all the processes can still be killed."""
        spec = replace(make_spec(), limits=Limits(pids=64))
        async for trial in running(engine, spec):
            server = trial.server()
            bomb = "echo on; b() { while :; do b & sleep 60; done; }; b"
            state = await trial.start(server, bomb)
            await trial.until_said(server, state.id, b"on")

            async def is_full() -> bool:
                stats = await engine.stats(spec.project)
                return stats is not None and stats.pids >= 60

            await until(is_full)
            async with asyncio.timeout(PATIENCE):
                ended = await server.kill(trial.project, state.id, grace=timedelta(seconds=1))
            assert ended.code is not None
            assert (await trial.finish(server, "exit 4")).code == 4
