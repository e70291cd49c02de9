"""A Docker engine that is absent, goes away in the middle, hangs, or lacks what is needed."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.docker_fixtures import PATIENCE, UID, PrivateDocker, new_engine, private_docker
from tests.docker_fixtures import socket_or_skip as a_socket

from anyon.domain.errors import (
    ConflictError,
    DeadlineExceededError,
    EngineUnavailableError,
    MissingError,
)
from anyon.engines.docker import DockerEngine
from anyon.engines.docker_client import DockerClient
from anyon.engines.engine import Command, ContainerState
from anyon.testing.engine_contract import spec_maker
from anyon.testing.engine_trials import sh

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def private() -> Iterator[PrivateDocker]:
    """One engine to break for all these tests."""
    with private_docker(a_socket()) as engine:
        yield engine


@pytest.fixture
async def engine(private: PrivateDocker) -> AsyncIterator[DockerEngine]:
    """A driver of the engine that is broken."""
    driver = new_engine(private.address)
    yield driver
    for info in await driver.list():
        await driver.remove(info.project)
    await driver.close()


async def test_a_missing_socket_says_what_to_do(tmp_path: Path) -> None:
    """Where nothing is, the error names the address and ways out."""
    driver = new_engine(f"unix://{tmp_path}/none.sock")
    with pytest.raises(EngineUnavailableError) as lost:
        await driver.health()
    assert "none.sock" in lost.value.message
    assert "bubblewrap" in lost.value.hint
    await driver.close()


async def test_a_socket_that_nobody_serves(tmp_path: Path) -> None:
    """A socket left behind, and one whose server hangs up, are an engine that is not there."""
    path = tmp_path / "left.sock"

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_unix_server(hang_up, path)
    driver = new_engine(f"unix://{path}")
    with pytest.raises(EngineUnavailableError):
        await driver.health()
    server.close()
    await server.wait_closed()
    with pytest.raises(EngineUnavailableError):
        await driver.list()
    await driver.close()


async def test_the_engine_dies_in_the_middle(
    engine: DockerEngine, private: PrivateDocker, tmp_path: Path
) -> None:
    """Kill -9: a reader is told, calls say what to do, and afterwards the container is adopted."""
    spec = spec_maker(tmp_path, owner=UID)()
    await engine.ensure(spec)
    before = await engine.start(spec.project)
    stream = await engine.open(spec.project, Command(argv=["cat"]))
    await stream.write(b"on\n")
    assert (await stream.read() or ("", b""))[1] == b"on\n"
    reading = asyncio.create_task(stream.read())
    waiting = asyncio.create_task(stream.wait())
    await asyncio.sleep(0)
    private.signal(signal.SIGKILL)
    try:
        async with asyncio.timeout(PATIENCE):
            for told in (reading, waiting):
                with pytest.raises(EngineUnavailableError):
                    await told
            with pytest.raises(ConflictError):
                await stream.write(b"late")
            await stream.close()
            with pytest.raises(EngineUnavailableError) as lost:
                await engine.inspect(spec.project)
            assert lost.value.hint
            with pytest.raises(EngineUnavailableError):
                await engine.open(spec.project, Command(argv=["true"]))
    finally:
        await asyncio.to_thread(private.start)
    after = await engine.ensure(spec)
    assert (after.id, after.pid, after.state) == (before.id, before.pid, ContainerState.RUNNING)
    again = await engine.open(spec.project, Command(argv=["true"]))
    assert await again.wait() == 0
    await again.close()


async def test_an_engine_that_hangs_meets_a_deadline(private: PrivateDocker) -> None:
    """A stopped daemon accepts and never answers: each call ends by its own deadline."""
    client = DockerClient(private.address)
    await client.version()
    private.signal(signal.SIGSTOP)
    try:
        with pytest.raises(DeadlineExceededError) as late:
            await client.get("/info", deadline=timedelta(seconds=0.3))
        assert late.value.hint
    finally:
        private.signal(signal.SIGCONT)
        await client.close()


async def test_a_missing_image_leaves_nothing(engine: DockerEngine, tmp_path: Path) -> None:
    """The error says how to make the image; no container is left."""
    driver = new_engine(engine.address, image="anyon/never-built:none")
    spec = spec_maker(tmp_path, owner=UID)()
    with pytest.raises(MissingError) as lost:
        await driver.ensure(spec)
    assert lost.value.code == "image_missing"
    assert "anyon image build" in lost.value.hint
    assert await driver.inspect(spec.project) is None
    await driver.close()


async def test_a_container_paused_by_others(
    engine: DockerEngine, private: PrivateDocker, tmp_path: Path
) -> None:
    """A pause by the engine's own tool is seen as frozen and undone by thaw, also after our freeze."""
    spec = spec_maker(tmp_path, owner=UID)()
    info = await engine.ensure(spec)
    await engine.start(spec.project)
    for first in (contextlib.nullcontext, engine.freeze):
        if first is engine.freeze:
            await engine.freeze(spec.project)
            await engine.thaw(spec.project)
        assert private.docker("pause", info.name).returncode == 0
        with pytest.raises(ConflictError) as refused:
            await engine.open(spec.project, Command(argv=["true"]))
        assert refused.value.code == "frozen"
        assert (await engine.thaw(spec.project)).state is ContainerState.RUNNING
        stream = await engine.open(spec.project, Command(argv=["true"]))
        assert await stream.wait() == 0
        await stream.close()


async def test_a_network_that_was_removed(
    engine: DockerEngine, private: PrivateDocker, tmp_path: Path
) -> None:
    """An operator's prune takes the bridge of stopped projects: the next start makes it again."""
    spec = spec_maker(tmp_path, owner=UID)()
    await engine.ensure(spec)
    await engine.start(spec.project)
    await engine.stop(spec.project, grace=timedelta(seconds=1))
    assert private.docker("network", "rm", "anyon").returncode == 0
    assert (await engine.start(spec.project)).state is ContainerState.RUNNING


async def test_the_first_projects_of_a_machine_come_at_once(
    engine: DockerEngine, private: PrivateDocker, tmp_path: Path
) -> None:
    """Several that find no bridge yet make one together: none is refused because another makes it too."""
    private.docker("network", "rm", "anyon")
    make = spec_maker(tmp_path, owner=UID)
    specs = [make() for _ in range(6)]
    made = await asyncio.gather(*(engine.ensure(spec) for spec in specs))
    assert [info.state for info in made] == [ContainerState.STOPPED] * len(specs)


async def test_an_engine_that_takes_its_containers_along(
    engine: DockerEngine, private: PrivateDocker, tmp_path: Path
) -> None:
    """Without live-restore a container ends with its engine: it is seen stopped, and starts again as it was."""
    spec = spec_maker(tmp_path, owner=UID)()
    await engine.ensure(spec)
    before = await engine.start(spec.project)
    assert (
        await sh(engine, spec.project, "echo kept >/var/tmp/kept; cat /var/tmp/kept") == b"kept\n"
    )
    private.keeps_containers = False
    try:
        private.signal(signal.SIGKILL)
        await asyncio.to_thread(private.start)
        seen = await engine.inspect(spec.project)
        assert seen is not None
        assert (seen.id, seen.state) == (before.id, ContainerState.STOPPED)
        with pytest.raises(ConflictError) as told:
            await engine.open(spec.project, Command(argv=["true"]))
        assert told.value.code == "not_running"
        after = await engine.start(spec.project)
        assert (after.id, after.state) == (before.id, ContainerState.RUNNING)
        assert await sh(engine, spec.project, "cat /var/tmp/kept") == b"kept\n"
    finally:
        private.keeps_containers = True
        private.signal(signal.SIGKILL)
        await asyncio.to_thread(private.start)
