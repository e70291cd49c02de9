"""Ports inside containers are reached on every engine, in each of the ways there are."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.docker_fixtures import UID, new_engine, socket_or_skip

from anyon.domain.ids import ProjectId
from anyon.engines import ports as port_ways
from anyon.engines import tunnels
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.docker import DockerEngine
from anyon.engines.engine import Engine
from anyon.engines.memory import MemoryEngine
from anyon.engines.ports import ContainerPorts, Ports
from anyon.testing.engine_trials import MakeSpec, spec_maker
from anyon.testing.ports_contract import PortsContract, echoed, free_port, serving


class _Tunnels:
    """The way by a program inside alone, as a server takes it that is not root."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ports = ContainerPorts(engine, shares_network=False)

    async def connect(self, project: ProjectId, port: int) -> socket.socket:
        info = await self._engine.inspect(project)
        if info is None or info.state != "running":
            return await self._ports.connect(project, port)  # refuses
        return await tunnels.tunnel(self._engine, project, port)

    async def listening(self, project: ProjectId) -> object:
        return await self._ports.listening(project)


class _OnDocker(PortsContract):
    has_version_6 = False

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


@pytest.mark.docker
class TestDockerPorts(_OnDocker):
    """By the container's network namespace."""

    @pytest.fixture
    def ports(self, engine: Engine) -> Ports:
        """The way that a server takes which is root."""
        return ContainerPorts(engine, shares_network=False)


@pytest.mark.docker
class TestDockerPortsByTunnel(_OnDocker):
    """By a program inside."""

    @pytest.fixture
    def ports(self, engine: Engine) -> Ports:
        """The way of engines elsewhere and servers without power."""
        return _Tunnels(engine)

    async def test_a_container_that_is_not_of_this_machine_is_not_looked_for_here(
        self, engine: Engine, project: ProjectId, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A pid that is in no cgroup of the container's name is nobody we know: the tunnel is taken."""
        ports = ContainerPorts(engine, shares_network=False)
        monkeypatch.setattr(port_ways, "cgroup_paths", lambda *_: {})
        port = free_port()
        async with serving(engine, project, port):
            assert await echoed(await ports.connect(project, port), b"x") == b"x"
            assert await ports.listening(project) == [port]

    async def test_root_that_may_enter_no_network_takes_the_tunnel(
        self, engine: Engine, project: ProjectId, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As under systemd's RestrictNamespaces: refused by the kernel, it goes the other way."""

        def refuse(*_: object) -> socket.socket:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(port_ways, "_socket_in", refuse)
        port = free_port()
        async with serving(engine, project, port):
            ports = ContainerPorts(engine, shares_network=False)
            assert await echoed(await ports.connect(project, port), b"x") == b"x"


class TestBubblewrapPorts(PortsContract):
    """By the host's network, and whose socket it is."""

    @pytest.fixture
    async def engine(self, tmp_path: Path) -> AsyncIterator[BubblewrapEngine]:
        """One that is closed after the test."""
        engine = BubblewrapEngine(tmp_path / "engine", hidden=[tmp_path])
        yield engine
        await engine.close()

    @pytest.fixture
    def ports(self, engine: Engine) -> Ports:
        """The way of an engine that shares the host's network."""
        return ContainerPorts(engine, shares_network=True)

    async def test_without_the_check_another_projects_port_would_be_reached(
        self, engine: Engine, project: ProjectId, make_spec: MakeSpec
    ) -> None:
        """The control of the suite's own tests: on a shared network the naive way goes astray."""
        other = make_spec()
        await engine.ensure(other)
        try:
            await engine.start(other.project)
            port = free_port()
            async with serving(engine, other.project, port):
                naive = await tunnels.tunnel(engine, project, port)
                assert await echoed(naive, b"astray") == b"astray"
        finally:
            await engine.remove(other.project)


class TestMemoryPorts(PortsContract):
    """The engine of tests shares the host's network too."""

    @pytest.fixture
    async def engine(self, tmp_path: Path) -> AsyncIterator[MemoryEngine]:
        """One that is closed after the test."""
        engine = MemoryEngine(hidden=[tmp_path])
        yield engine
        await engine.close()

    @pytest.fixture
    def ports(self, engine: Engine) -> Ports:
        """As for bubblewrap."""
        return ContainerPorts(engine, shares_network=True)
