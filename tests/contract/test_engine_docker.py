"""The docker engine keeps every promise of the engine's interface, and some of its own."""

import asyncio
import dataclasses
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.docker_fixtures import IMAGE, UID, new_engine, socket_or_skip

from anyon.domain.ids import ProjectId
from anyon.engines.docker import DockerEngine
from anyon.engines.engine import Command, ContainerSpec, ContainerState, Limits, Mount
from anyon.testing.engine_contract import EngineContract, MakeSpec, spec_maker
from anyon.testing.engine_trials import read_until, run, sh, until

pytestmark = pytest.mark.docker

LISTEN = (
    "use IO::Socket::INET; $s = IO::Socket::INET->new(LocalPort => 7777, Listen => 5, "
    'ReuseAddr => 1) or die; $| = 1; print "on\\n"; while ($c = $s->accept) { close $c }'
)
REACH = (
    "use IO::Socket::INET; exit(IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => 7777, "
    "Timeout => 2) ? 0 : 9)"
)


async def _is_none(engine: DockerEngine, project: ProjectId, count: str) -> bool:
    return (await sh(engine, project, count)).strip() == b"0"


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

    async def test_two_servers_make_one_container(
        self, engine: DockerEngine, make_spec: MakeSpec
    ) -> None:
        """The name is the lock: servers that know nothing of each other adopt one container."""
        spec = make_spec()
        others = [new_engine(engine.address) for _ in range(4)]
        made = await asyncio.gather(*(item.ensure(spec) for item in (engine, *others)))
        assert len({info.id for info in made}) == 1
        owners = [item for item in (engine, *others) if await item.list()]
        assert len(owners) == 1  # a home lists what carries its label only
        await engine.remove(spec.project)
        for item in others:
            await item.close()

    async def test_another_server_finds_what_is_frozen(
        self, engine: DockerEngine, project: ProjectId
    ) -> None:
        """Frozen is read from the container, not remembered: a new server sees and undoes it."""
        await engine.freeze(project)
        new = new_engine(engine.address)
        found = await new.inspect(project)
        assert found is not None
        assert found.state is ContainerState.FROZEN
        await new.thaw(project)
        assert await sh(engine, project, "echo on") == b"on\n"
        assert (await engine.thaw(project)).state is ContainerState.RUNNING
        await new.close()

    async def test_a_stream_closed_at_once_leaves_no_program(
        self, engine: DockerEngine, project: ProjectId
    ) -> None:
        """A program that the engine had not even begun when its stream was closed is ended too."""
        opened = [await engine.open(project, Command(argv=["sleep", "4711"])) for _ in range(3)]
        await asyncio.gather(*(stream.close() for stream in opened))
        left = (
            "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'sleep 47[1]1' || true"
        )
        await until(lambda: _is_none(engine, project, left))

    async def test_programs_inside_have_no_powers(
        self, engine: DockerEngine, project: ProjectId
    ) -> None:
        """No capability, no way to gain one, filtered calls, an ordinary user, no engine's socket.

        Control: a container without our options has capabilities.
        """
        status = (await sh(engine, project, "cat /proc/self/status")).decode()
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert {facts[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
        assert facts["Uid"].split() == [str(UID)] * 4
        assert await sh(engine, project, "ls /var/run/docker.sock 2>/dev/null || echo none") == (
            b"none\n"
        )
        control = await asyncio.to_thread(
            subprocess.run,
            ["docker", "run", "--rm", "-u", "0", IMAGE, "grep", "CapEff", "/proc/self/status"],
            capture_output=True,
            check=True,
        )
        assert "0" * 16 not in control.stdout.decode()

    async def test_neighbours_cannot_reach_each_other(
        self, engine: DockerEngine, project: ProjectId, make_spec: MakeSpec
    ) -> None:
        """A service of one project is out of another's reach. Control: its own can reach it."""
        other = make_spec()
        await engine.ensure(other)
        await engine.start(other.project)
        stream = await engine.open(other.project, Command(argv=["perl", "-e", LISTEN]))
        await read_until(stream, b"on")
        address = (await sh(engine, other.project, "hostname -I")).decode().split()[0]
        own, _, _ = await run(engine, other.project, "perl", "-e", REACH, address)
        foreign, _, _ = await run(engine, project, "perl", "-e", REACH, address)
        assert (own, foreign) == (0, 9)
        await stream.close()

    async def test_memory_is_bounded_and_its_end_is_counted(
        self, engine: DockerEngine, make_spec: MakeSpec
    ) -> None:
        """A program that wants more is killed, the container goes on, and the kill is counted."""
        spec = dataclasses.replace(make_spec(), limits=Limits(memory_bytes=64 << 20, pids=64))
        await engine.ensure(spec)
        await engine.start(spec.project)
        greedy = "$x = 'a' x 300_000_000; print length $x"
        code, out, _ = await run(engine, spec.project, "perl", "-e", greedy)
        assert (code, out) == (137, b"")
        stats = await engine.stats(spec.project)
        assert stats is not None
        assert stats.oom_kills >= 1
        assert await sh(engine, spec.project, "echo on") == b"on\n"

    async def test_directories_are_made_for_the_containers_user(
        self, engine: DockerEngine, spec: ContainerSpec, tmp_path: Path
    ) -> None:
        """A mount that is not there is made, and given to who works inside (needs a root server)."""
        await engine.remove(spec.project)
        fresh = tmp_path / "new" / "home"
        first, second, *rest = spec.mounts
        mounts = [first, Mount(source=fresh, target=second.target), *rest]
        await engine.ensure(dataclasses.replace(spec, mounts=mounts))
        await engine.start(spec.project)
        await sh(engine, spec.project, "echo x >$HOME/file")
        assert (fresh / "file").stat().st_uid == UID
