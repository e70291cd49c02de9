"""What every way to a container's ports does, as a suite: a driver's test gives ``engine`` and ``ports``.

The containers need ``perl`` besides ``sh``. Ports are taken from the host's free ones, since on
some engines they are the host's.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from anyon.domain.errors import AnyonError, ConflictError, UnavailableError
from anyon.domain.ids import ProjectId
from anyon.engines.engine import Command, ContainerSpec, Engine, Stream
from anyon.engines.ports import Ports
from anyon.testing.engine_trials import GRACE, EngineTrials, MakeSpec, read_until

ECHO = """\
use Socket qw(:all); my ($at, $port) = @ARGV; $| = 1;
my $six = $at =~ /:/; socket(S, $six ? AF_INET6 : AF_INET, SOCK_STREAM, 0) or die "socket: $!";
setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1);
my $to = inet_pton($six ? AF_INET6 : AF_INET, $at);
bind(S, $six ? pack_sockaddr_in6($port, $to) : pack_sockaddr_in($port, $to)) or die "bind: $!";
listen(S, 50) or die; print "on\\n";
while (accept(my $c, S)) { next if fork; while (sysread $c, my $d, 65536) {
  while (length $d) { my $n = syswrite $c, $d; exit unless $n; substr($d, 0, $n) = "" } } exit }
"""
"""A server that sends back what it gets, on one address and port."""


def free_port() -> int:
    """Return a port that nobody on this machine listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def serving(
    engine: Engine, project: ProjectId, port: int, at: str = "127.0.0.1"
) -> AsyncIterator[Stream]:
    """Run the echo server in a container for the length of the block."""
    stream = await engine.open(project, Command(argv=["perl", "-e", ECHO, at, str(port)]))
    try:
        await read_until(stream, b"on")
        yield stream
    finally:
        await stream.close()


async def echoed(made: socket.socket, data: bytes) -> bytes:
    """Send *data*, end, and return all that comes back."""
    reader, writer = await asyncio.open_connection(sock=made)
    try:
        async with asyncio.timeout(60):

            async def send() -> None:
                writer.write(data)
                await writer.drain()
                writer.write_eof()

            sent, answer = await asyncio.gather(send(), reader.read(-1))
            assert sent is None
            return answer
    finally:
        writer.close()


class PortsContract(EngineTrials):
    """All promises of ``engines.ports.Ports``."""

    has_version_6 = True
    """Whether containers have an IPv6 loopback."""

    @pytest.fixture
    def ports(self, engine: Engine) -> Ports:
        """What is under test."""
        raise NotImplementedError

    @pytest.mark.parametrize("at", ["127.0.0.1", "0.0.0.0", "::1"])  # noqa: S104 - inside
    async def test_a_server_inside_is_reached(
        self, engine: Engine, ports: Ports, project: ProjectId, at: str
    ) -> None:
        """Bytes go both ways, many at once, and the end of one way is not the end of the other."""
        if ":" in at and not self.has_version_6:
            pytest.skip("the engine gives containers no IPv6")
        port = free_port()
        async with serving(engine, project, port, at):
            assert await echoed(await ports.connect(project, port), b"hello") == b"hello"
            much = bytes(range(256)) * 8192
            made = [await ports.connect(project, port) for _ in range(3)]
            assert await asyncio.gather(*(echoed(one, much) for one in made)) == [much] * 3

    async def test_a_port_on_which_nothing_listens_is_told(
        self, ports: Ports, project: ProjectId
    ) -> None:
        """The error has its own code."""
        with pytest.raises(UnavailableError) as told:
            await ports.connect(project, free_port())
        assert told.value.code == "nothing_listens"

    async def test_the_hosts_own_port_is_never_reached(
        self, engine: Engine, ports: Ports, project: ProjectId
    ) -> None:
        """A program of the host that listens is not the project's; the control shows that it is there."""
        async with serving(engine, project, free_port()):  # the container has programs of its own
            with socket.create_server(("127.0.0.1", 0)) as host:
                port = host.getsockname()[1]
                with socket.create_connection(("127.0.0.1", port), 5):  # the control
                    pass
                with pytest.raises(AnyonError) as told:
                    await ports.connect(project, port)
                assert told.value.code in {"nothing_listens", "port_of_another"}
                assert port not in await ports.listening(project)

    async def test_another_projects_port_is_never_reached(
        self, engine: Engine, ports: Ports, project: ProjectId, make_spec: MakeSpec
    ) -> None:
        """Not though it has the number that was asked for; to its own project it is there."""
        other = make_spec()
        await engine.ensure(other)
        try:
            await engine.start(other.project)
            port = free_port()
            async with (
                serving(engine, other.project, port),
                serving(engine, project, free_port()),
            ):
                assert await echoed(await ports.connect(other.project, port), b"o") == b"o"
                with pytest.raises(AnyonError) as told:
                    await ports.connect(project, port)
                assert told.value.code in {"nothing_listens", "port_of_another"}
                assert port not in await ports.listening(project)
                assert port in await ports.listening(other.project)
        finally:
            await engine.remove(other.project)

    async def test_ports_are_listed_also_of_a_frozen_container(
        self, engine: Engine, ports: Ports, project: ProjectId
    ) -> None:
        """What is listened on is seen, in order, and the list thaws nothing; a connection is refused."""
        low, high = sorted((free_port(), free_port()))
        async with serving(engine, project, high), serving(engine, project, low):
            assert await ports.listening(project) == [low, high]
            await engine.freeze(project)
            try:
                assert await self.listed_frozen(ports, project) in ([low, high], "frozen")
                with pytest.raises(ConflictError) as told:
                    await ports.connect(project, low)
                assert told.value.code == "frozen"
            finally:
                await engine.thaw(project)

    async def listed_frozen(self, ports: Ports, project: ProjectId) -> object:
        """Return the list, or the code of why there is none."""
        try:
            return await ports.listening(project)
        except ConflictError as error:
            return error.code

    async def test_a_stopped_container_has_no_ports(
        self, engine: Engine, ports: Ports, spec: ContainerSpec
    ) -> None:
        """It is not started for a list or a connection; one that is gone is absent."""
        await engine.start(spec.project)
        await engine.stop(spec.project, grace=GRACE)
        for ask in (ports.listening(spec.project), ports.connect(spec.project, free_port())):
            with pytest.raises(ConflictError) as told:
                await ask
            assert told.value.code == "not_running"
        await engine.remove(spec.project)
        with pytest.raises(AnyonError) as gone:
            await ports.listening(spec.project)
        assert gone.value.code == "container_absent"
