"""The server dies at any moment: its containers go on, and are never two."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.bubblewrap_records import Records
from anyon.engines.engine import Command, ContainerState
from anyon.engines.sandbox_processes import identify, table
from anyon.engines.sandboxes import find_tools
from anyon.testing.engine_contract import spec_maker
from anyon.testing.engine_trials import read_until, sh, size, until

SOURCE = str(Path(__file__).parents[2] / "src")
SERVER = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from anyon.engines import bubblewrap_records
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.engine import Command
from anyon.domain.ids import ProjectId
state, project = Path(sys.argv[2]), ProjectId(sys.argv[3])

def die():
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    engine = BubblewrapEngine(state)
"""


def _server(state: Path, project: str, body: str) -> subprocess.Popen[bytes]:
    code = SERVER + textwrap.indent(textwrap.dedent(body), "    ") + "\nasyncio.run(main())\n"
    return subprocess.Popen(
        [sys.executable, "-c", code, SOURCE, str(state), project], stdout=subprocess.PIPE
    )


@pytest.fixture
def state(tmp_path):
    """The engine's directory."""
    return tmp_path / "engine"


@pytest.fixture
async def engine(state, tmp_path):
    """The server's engine after its restart."""
    engine = BubblewrapEngine(state, hidden=[tmp_path])
    yield engine
    for info in await engine.list():
        await engine.remove(info.project)
    await engine.close()


@pytest.fixture
async def spec(engine, tmp_path):
    """A project with a stopped container."""
    spec = spec_maker(tmp_path)()
    await engine.ensure(spec)
    return spec


async def test_a_container_outlives_a_killed_server(engine, spec, state):
    """After kill -9 of the server the container goes on with its programs, and is adopted as it is."""
    server = _server(
        state,
        spec.project,
        """
        await engine.start(project)
        beat = "setsid sh -c 'while :; do echo x >>/workspace/beats; sleep 0.05; done' >/dev/null 2>&1 &"
        stream = await engine.open(project, Command(argv=["sh", "-c", beat]))
        assert await stream.wait() == 0
        print((await engine.inspect(project)).pid, flush=True)
        die()
        """,
    )
    out, _ = await asyncio.to_thread(server.communicate, timeout=60)
    assert server.returncode == -signal.SIGKILL
    info = await engine.inspect(spec.project)
    assert info is not None
    assert (info.state, info.pid) == (ContainerState.RUNNING, int(out))
    assert (await engine.start(spec.project)).pid == info.pid
    beats = spec.mounts[0].source / "beats"
    before = size(beats)

    async def goes_on():
        return size(beats) > before

    await until(goes_on)
    assert await sh(engine, spec.project, "echo here") == b"here\n"
    stopped = await engine.stop(spec.project, grace=timedelta(seconds=5))
    assert stopped.state is ContainerState.STOPPED


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_server_killed_while_it_starts_one(engine, spec, state, moment):
    """Killed before or after the start is recorded: no sandbox is left that nobody knows of."""
    server = _server(
        state,
        spec.project,
        f"""
        moment, write = {moment!r}, bubblewrap_records.Records.write
        def dying(self, record):
            print(record.first.pid, flush=True)
            if moment == "after":
                write(self, record)
            die()
        bubblewrap_records.Records.write = dying
        await engine.start(project)
        """,
    )
    out, _ = await asyncio.to_thread(server.communicate, timeout=60)
    assert server.returncode == -signal.SIGKILL

    async def gone():
        return identify(int(out)) is None

    await until(gone)
    info = await engine.inspect(spec.project)
    assert info is not None
    assert info.state is ContainerState.STOPPED
    assert (await engine.start(spec.project)).state is ContainerState.RUNNING
    assert await sh(engine, spec.project, "echo here") == b"here\n"


async def test_two_servers_start_one_container(engine, spec, state):
    """The lock holds between processes too."""
    body = """
        infos = await asyncio.gather(*(engine.start(project) for _ in range(5)))
        print(*{info.pid for info in infos}, flush=True)
        """
    servers = [_server(state, spec.project, body) for _ in range(3)]
    outs = [(await asyncio.to_thread(server.communicate, timeout=60))[0] for server in servers]
    assert len(set(outs)) == 1, outs
    info = await engine.inspect(spec.project)
    assert info is not None
    assert info.pid == int(outs[0])


async def test_a_pid_used_again_is_not_taken_for_the_container(engine, spec, state):
    """A record whose pid now belongs to another program is a stopped container; it is left alone."""
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        identity = identify(stranger.pid)
        assert identity is not None
        records = Records(state)
        for wrong in (
            replace(identity, started_ticks=identity.started_ticks - 100),
            replace(identity, boot="an earlier boot"),
        ):
            record = records.read(spec.project)
            records.write(replace(record, first=wrong))
            info = await engine.inspect(spec.project)
            assert info is not None
            assert info.state is ContainerState.STOPPED
            await engine.stop(spec.project, grace=timedelta(seconds=1))
        assert stranger.poll() is None
        # The control: with the true start time it would have been taken for it.
        record = records.read(spec.project)
        records.write(replace(record, first=identity))
        info = await engine.inspect(spec.project)
        assert info.state is ContainerState.RUNNING
        records.write(record)
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_container_killed_from_outside_is_stopped_and_can_be_started(engine, spec):
    """What the machine killed is seen as stopped, with a code that says so."""
    info = await engine.start(spec.project)
    os.kill(info.pid, signal.SIGKILL)

    async def stopped():
        return (await engine.inspect(spec.project)).state is ContainerState.STOPPED

    await until(stopped)
    assert (await engine.inspect(spec.project)).exit_code == 137
    again = await engine.start(spec.project)
    assert again.state is ContainerState.RUNNING
    assert again.pid != info.pid


async def test_a_start_that_fails_leaves_nothing(engine, tmp_path):
    """A mount whose source is gone: a clear error, no process, and a later start works."""
    spec = spec_maker(tmp_path)()
    await engine.ensure(spec)
    source = spec.mounts[0].source
    source.rename(source.with_name("moved"))
    with pytest.raises(Exception, match="bubblewrap could not make the sandbox") as refused:
        await engine.start(spec.project)
    assert refused.value.code == "start_failed"
    assert (await engine.inspect(spec.project)).state is ContainerState.STOPPED
    source.with_name("moved").rename(source)
    assert (await engine.start(spec.project)).state is ContainerState.RUNNING


async def test_a_caller_that_goes_away_changes_nothing(engine, spec):
    """A cancelled start is finished, with the container to itself, before anything else is done."""
    call = asyncio.ensure_future(engine.start(spec.project))
    await asyncio.sleep(0)
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    info = await engine.start(spec.project)
    assert info.state is ContainerState.RUNNING
    firsts = [item for item in table().values() if item.pid == info.pid and item.state not in "ZX"]
    assert len(firsts) == 1
    assert await sh(engine, spec.project, "echo here") == b"here\n"


async def test_a_program_whose_opener_went_away_is_ended(engine, spec):
    """A cancelled open leaves no program that nobody could ever close."""
    await engine.start(spec.project)
    command = Command(argv=["sh", "-c", "echo x >/workspace/ran; exec sleep 31536000"])
    for turns in (1, 2, 3):
        call = asyncio.ensure_future(engine.open(spec.project, command))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await call).close()

    async def none():
        out = await sh(engine, spec.project, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        return b"sleep 31536000" not in out

    await until(none)


async def test_the_first_process_reaps_and_its_lack_is_seen(engine, spec):
    """Orphans are collected by the first process; the control: one that does not leaves zombies."""
    await engine.start(spec.project)
    count = "cat /proc/[0-9]*/status 2>/dev/null | grep -c '^State:.Z' || true"
    orphan = "i=0; while [ $i -lt 20 ]; do (sleep 0.01 &); i=$((i+1)); done; sleep 1"
    await sh(engine, spec.project, orphan)

    async def none():
        return (await sh(engine, spec.project, count)).strip() == b"0"

    await until(none)
    bwrap = find_tools().bwrap
    own = ["--unshare-user"] if os.geteuid() else []
    idle = textwrap.dedent(
        f"""
        import os, subprocess, time
        subprocess.run(["sh", "-c", {orphan!r}])
        time.sleep(0.5)
        found = 0
        for name in os.listdir("/proc"):
            if name.isdigit():
                found += ") Z " in open(f"/proc/{{name}}/stat").read()
        print(found)
        """
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [
            *(str(bwrap), *own, "--unshare-pid", "--as-pid-1", "--ro-bind", "/", "/"),
            *("--proc", "/proc", "--dev", "/dev", sys.executable, "-c", idle),
        ],
        capture_output=True,
        timeout=60,
    )
    assert int(done.stdout) > 0, done


async def test_a_frozen_container_is_still_frozen_for_a_new_server(engine, spec, state):
    """What was frozen by a server that died is known as frozen, and thaws."""
    await engine.start(spec.project)
    stream = await engine.open(spec.project, Command(argv=["sh", "-c", "echo on; cat"]))
    await read_until(stream, b"on")
    await engine.freeze(spec.project)
    successor = BubblewrapEngine(state)
    info = await successor.inspect(spec.project)
    assert info is not None
    assert info.state is ContainerState.FROZEN
    assert (await successor.thaw(spec.project)).state is ContainerState.RUNNING
    await stream.write(b"more\n")
    await read_until(stream, b"more")
    await stream.close()
    await successor.close()
