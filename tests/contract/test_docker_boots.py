"""The first program of a Docker container needs no exec of the engine, and nothing depends on it."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.docker_fixtures import UID, new_engine, socket_or_skip

from anyon.domain.ids import ProjectId
from anyon.engines.docker import DockerEngine
from anyon.engines.docker_boots import program_text
from anyon.engines.engine import Command, ContainerSpec, ContainerState
from anyon.testing.engine_trials import (
    GRACE,
    EngineTrials,
    MakeSpec,
    read_until,
    sh,
    spec_maker,
    until,
)

pytestmark = pytest.mark.docker

SAYS = Command(
    argv=["sh", "-c", 'echo "$X $PWD"; while read -r l && [ "$l" != leave ]; do echo "<$l>"; done'],
    cwd=Path("/workspace"),
    env={"X": "it's"},
    is_lasting=True,
)


def execs(project: ProjectId) -> list[str]:
    """Return the execs that the engine knows of in a container."""
    done = subprocess.run(
        ["docker", "inspect", f"project-{project}"], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)[0]["ExecIDs"] or []


class TestBoots(EngineTrials):
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

    async def test_the_first_lasting_program_is_the_first_process_own(
        self, engine: DockerEngine, project: ProjectId
    ) -> None:
        """No exec is made for it; it has its directory and variables; the second one is an exec."""
        first = await engine.open(project, SAYS)
        assert b"it's /workspace\n" in await read_until(first, b"/workspace\n")
        await first.write(b"a\n")
        assert await read_until(first, b">") == b"<a>\n"
        assert execs(project) == []
        second = await engine.open(project, SAYS)
        await read_until(second, b"/workspace\n")
        assert len(execs(project)) == 1
        for stream in (second, first):
            await stream.write(b"leave\n")
            await stream.close_stdin()
            assert await stream.read() is None
            await stream.close()
        assert await sh(engine, project, "echo on") == b"on\n"

    async def test_the_container_outlives_its_first_program(
        self, engine: DockerEngine, project: ProjectId
    ) -> None:
        """Killed inside, or its server gone in the middle of a line: the container runs on, and stops at once."""
        stream = await engine.open(project, SAYS)
        await read_until(stream, b"/workspace\n")
        await stream.write(b"half of a li")
        await stream.close()
        other = new_engine(engine.address)
        try:
            again = await other.open(project, SAYS)
            assert b"it's" in await read_until(again, b"/workspace\n")
            await again.write(b"whole\n")
            assert await read_until(again, b">") == b"<whole>\n"
            await again.close()
        finally:
            await other.close()
        # A bracket, so that the pattern does not find the shell that looks for it.
        await sh(engine, project, "pkill -KILL -f 'leav[e]' || true; sleep 0.2")
        info = await engine.inspect(project)
        assert info is not None
        assert info.state is ContainerState.RUNNING
        async with asyncio.timeout(60):
            stopped = await engine.stop(project, grace=GRACE)
        assert stopped.state is ContainerState.STOPPED

    async def test_its_end_is_told(self, engine: DockerEngine, project: ProjectId) -> None:
        """Killed by who lives in the container, its reader learns it at once, and the code."""
        stream = await engine.open(project, SAYS)
        await read_until(stream, b"/workspace\n")
        await sh(engine, project, "pkill -KILL -f 'leav[e]'")
        async with asyncio.timeout(60):
            assert await stream.wait() == 137
        await stream.close()

    async def test_each_start_has_a_first_program_of_its_own(
        self, engine: DockerEngine, project: ProjectId
    ) -> None:
        """Taken or not in the life before, it waits again after a stop and a start; frozen it is refused."""
        for is_taken in (True, False, True):
            if is_taken:
                stream = await engine.open(project, SAYS)
                await read_until(stream, b"/workspace\n")
                assert execs(project) == []
                await engine.stop(project, grace=GRACE)
                assert await stream.read() is None
                await stream.close()
            else:
                await engine.stop(project, grace=GRACE)
            await engine.start(project)

    async def test_a_container_of_before_is_opened_by_an_exec(
        self, engine: DockerEngine, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that was made without a first process that takes programs works as ever."""
        spec: ContainerSpec = make_spec()
        monkeypatch.setattr("anyon.engines.docker_options.docker_boots.LABEL", "dev.anyon.other")
        await engine.ensure(spec)
        monkeypatch.undo()
        await engine.start(spec.project)
        stream = await engine.open(spec.project, SAYS)
        await read_until(stream, b"/workspace\n")
        assert len(execs(spec.project)) == 1
        await stream.close()

        async def is_over() -> bool:
            return execs(spec.project) == []

        await until(is_over)


def test_what_is_told_is_one_length_and_one_text() -> None:
    """Nothing that a command holds can be read as another command."""
    hostile = Command(argv=["echo", "'; rm -rf /; '", "$(x)", "a\nb"], env={"A": "`x`"})
    length, _, text = program_text(hostile).partition(b"\n")
    assert int(length) == len(text)
    done = subprocess.run(["sh", "-c", text.decode()], capture_output=True, check=True)
    assert done.stdout == b"'; rm -rf /; ' $(x) a\nb\n"
