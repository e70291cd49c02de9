"""The server is killed while processes run and print: not one byte is lost, no exit is wrong."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.docker_fixtures import UID, new_engine, socket_or_skip

from anyon.domain.ids import ProcessId
from anyon.domain.states import ExitReason
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.docker import DockerEngine
from anyon.engines.engine import Channel
from anyon.processes.processes import ProcessSpec
from anyon.testing.engine_trials import PATIENCE, MakeSpec, spec_maker, until
from anyon.testing.process_trials import ProcessFixtures, Trial, seen

SOURCE = str(Path(__file__).parents[2] / "src")
COUNT, LINES = 10, 400
SERVER = """
import asyncio, json, sys
from datetime import timedelta
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from anyon.clock import SystemClock
from anyon.processes.durable import DurableProcesses
from anyon.processes.processes import ProcessSpec
given = json.loads(sys.argv[2])

def engine():
    if given["engine"] == "bubblewrap":
        from anyon.engines.bubblewrap import BubblewrapEngine
        return BubblewrapEngine(Path(given["state"]), hidden=[Path(given["hidden"])])
    from anyon.engines.docker import DockerEngine
    return DockerEngine(given["socket"], instance=given["instance"], uid=given["uid"])

async def follow(server, name, file):
    async for chunk in server.follow(given["project"], name):
        with open(f"{file}.{chunk.channel}", "ab") as out:
            out.write(chunk.data)

async def main():
    server = DurableProcesses(engine(), lambda _: Path(given["run"]), SystemClock())
    specs = [ProcessSpec(id=name, argv=["sh", "-c", given["script"], "sh", str(n)],
                         timeout=timedelta(hours=1))
             for n, name in enumerate(given["names"])]
    starts = [asyncio.create_task(server.start(given["project"], spec)) for spec in specs]
    for start in starts:
        await start
        print("started", flush=True)
    await asyncio.gather(*(follow(server, spec.id, given["seen"] + spec.id) for spec in specs))

asyncio.run(main())
"""
SCRIPT = (
    f'i=0; while [ $i -lt {LINES} ]; do echo "process $1 line $i"; echo "err $i" >&2; i=$((i+1)); '
    "[ $((i % 50)) != 0 ] || sleep 0.1; done; exit $1"
)


def _expected(number: int) -> bytes:
    return b"".join(b"process %d line %d\n" % (number, line) for line in range(LINES))


class KillsContract(ProcessFixtures):
    """Over a driver's ``engine``, ``make_spec`` and ``given`` (what a server needs to make its own)."""

    def _server(
        self, trial: Trial, given: dict, names: list[str], seen_at: Path
    ) -> subprocess.Popen:
        facts = {
            **given,
            "project": trial.project,
            "run": str(trial.run),
            "script": SCRIPT,
            "names": names,
            "seen": f"{seen_at}/",
        }
        return subprocess.Popen(
            [sys.executable, "-c", SERVER, SOURCE, json.dumps(facts)], stdout=subprocess.PIPE
        )

    @pytest.mark.parametrize("started", [1, COUNT])
    async def test_a_killed_server_loses_no_byte(
        self, trial: Trial, given: dict, tmp_path: Path, started: int
    ) -> None:
        """Killed while ten start or while they print; all run once, whole, and end as they would.

        What the old server's followers had seen is a beginning of what there is: a follower that
        resumes there gets the rest.
        """
        names = [f"{started}-process-{n}" for n in range(COUNT)]
        seen_at = tmp_path / "seen"
        seen_at.mkdir()
        old = self._server(trial, given, names, seen_at)
        assert old.stdout is not None
        for _ in range(started):
            assert await asyncio.to_thread(old.stdout.readline) == b"started\n"
        if started == COUNT:
            await seen(lambda: all((seen_at / f"{name}.stdout").exists() for name in names))
        old.send_signal(signal.SIGKILL)
        await asyncio.to_thread(old.wait)
        old.stdout.close()

        new = trial.server()
        await new.adopt(trial.project)
        for n, name in enumerate(names):  # as the next server does with what it had intended
            spec = ProcessSpec(id=ProcessId(name), argv=["sh", "-c", SCRIPT, "sh", str(n)])
            await new.start(trial.project, spec)
        for n, name in enumerate(names):
            process = ProcessId(name)
            got = await trial.outputs(new, process)
            assert got[Channel.STDOUT] == _expected(n)
            assert got[Channel.STDERR] == b"".join(b"err %d\n" % i for i in range(LINES))
            async with asyncio.timeout(PATIENCE):
                ended = await new.wait(trial.project, process)
            assert (ended.code, ended.reason) == (n, ExitReason.EXITED)
            for channel in Channel:
                known = seen_at / f"{name}.{channel}"
                assert not known.exists() or got[channel].startswith(known.read_bytes())

    async def test_a_timeout_is_kept_while_no_server_is_there(
        self, trial: Trial, tmp_path: Path
    ) -> None:
        """A process that overruns is ended from inside, with its tree, when nobody looks."""
        server = trial.server()
        state = await trial.start(
            server, "echo on; setsid sleep 300 & sleep 300", timeout=timedelta(seconds=1)
        )
        await server.close()
        await seen((trial.run / state.id / "exit").exists)
        new = trial.server()
        ended = await new.wait(trial.project, state.id)
        assert (ended.code, ended.reason) == (143, ExitReason.TIMEOUT)

        async def none_is_left() -> bool:
            return not await trial.count(new, "^sleep 300")

        await until(none_is_left)


class TestOverBubblewrap(KillsContract):
    """The embedded engine's containers outlive the server."""

    @pytest.fixture
    async def engine(self, tmp_path: Path) -> AsyncIterator[BubblewrapEngine]:
        """One that is closed after the test."""
        engine = BubblewrapEngine(tmp_path / "engine", hidden=[tmp_path])
        yield engine
        await engine.close()

    @pytest.fixture
    def given(self, tmp_path: Path) -> dict:
        """What another server needs for the same engine."""
        return {
            "engine": "bubblewrap",
            "state": str(tmp_path / "engine"),
            "hidden": str(tmp_path),
        }

    @pytest.fixture
    def make_spec(self, tmp_path: Path) -> MakeSpec:
        """Specs of new projects."""
        return spec_maker(tmp_path)

    async def test_much_output_does_not_fill_the_disk(self, trial: Trial) -> None:
        """300 MB under a cap of 1 MiB: what lies on the disk stays bounded all the while."""
        server = trial.server()
        cap, total = 1 << 20, 300_000_000
        state = await trial.start(
            server, f"head -c {total} /dev/zero | tr '\\0' x", output_cap_bytes=cap
        )
        most = 0
        file = trial.run / state.id / "stdout"
        waiting = asyncio.create_task(server.wait(trial.project, state.id))
        while not waiting.done():
            most = max(most, file.stat().st_blocks * 512 if file.exists() else 0)
            await asyncio.sleep(0.01)
        assert (await waiting).code == 0
        assert file.stat().st_size == total
        assert most < 100_000_000  # a loaded machine may look late, but it does look
        await seen(lambda: file.stat().st_blocks * 512 < 2 * cap)
        got = 0
        async for chunk in server.follow(trial.project, state.id):
            assert not chunk.data.strip(b"x")
            got = chunk.next_offset
        assert got == total


@pytest.mark.docker
class TestOverDocker(KillsContract):
    """A docker container's processes do not hang on the server's connection."""

    @pytest.fixture
    async def engine(self) -> AsyncIterator[DockerEngine]:
        """An engine of a home of its own, emptied afterwards."""
        engine = new_engine(socket_or_skip(), instance=f"test-kills-{os.getpid()}")
        yield engine
        for info in await engine.list():
            await engine.remove(info.project)
        await engine.close()

    @pytest.fixture
    def given(self, engine: DockerEngine) -> dict:
        """What another server needs for the same engine."""
        return {
            "engine": "docker",
            "socket": engine.address,
            "instance": f"test-kills-{os.getpid()}",
            "uid": UID,
        }

    @pytest.fixture
    def make_spec(self, tmp_path: Path) -> MakeSpec:
        """Specs whose directories are the container user's."""
        return spec_maker(tmp_path, owner=UID)
