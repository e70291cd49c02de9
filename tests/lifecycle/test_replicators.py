"""Litestream as a child of the server, and what is told when the store does not answer."""

import math
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from anyon.clock import SystemClock
from anyon.db import litestream
from anyon.db.sqlite import library
from anyon.lifecycle.replicators import Follower, Replicator, Snapshotter, pause_after
from anyon.lifecycle.vitals import StateVitals
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.keys import PlainKeys
from anyon.storage.replicas import Replica
from anyon.storage.servers import states
from anyon.storage.snapshots import Snapshots
from anyon.testing.store_faults import FaultyStore

PATIENCE = 60.0


def follower(tmp_path: Path, registry: CollectorRegistry, **more: object) -> Follower:
    """Return a follower of a small database."""
    path = tmp_path / "anyon.db"
    connection = library().connect(str(path), isolation_level=None)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("CREATE TABLE IF NOT EXISTS numbers (number)")
    connection.close()
    binary = litestream.program()
    assert binary is not None
    given = {
        "binary": binary,
        "database": path,
        "place": tmp_path / "litestream",
        "interval": timedelta(milliseconds=100),
        "clock": SystemClock(),
        "vitals": StateVitals(registry),
        "server_pid": os.getpid(),
    }
    return Follower(**{**given, **more})  # type: ignore[arg-type]


def value(registry: CollectorRegistry, name: str) -> float | None:
    """Return what a metric says."""
    return registry.get_sample_value(name)


async def until(condition, tick) -> None:  # type: ignore[no-untyped-def] # any two callables
    """Tick until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        await tick()
        await SystemClock().sleep(timedelta(milliseconds=50))


def is_alive(pid: int) -> bool:
    """Say whether there is a process that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_it_is_started_again(tmp_path: Path) -> None:
    """After a kill it runs anew, the end is counted, and it ends with the server."""
    registry = CollectorRegistry()
    made = follower(tmp_path, registry)
    written = tmp_path / "litestream" / "replica" / "ltx"
    await until(lambda: list(written.glob("*/*.ltx")), made.tick)
    assert value(registry, "anyon_state_replicating") == 1
    first = made.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: made.pid not in {None, first}, made.tick)
    assert value(registry, "anyon_state_replicator_restarts_total") == 1
    assert value(registry, "anyon_state_replicating") == 1
    second = made.pid
    assert second is not None
    await made.close()
    assert not is_alive(second)
    assert value(registry, "anyon_state_replicating") == 0


async def test_one_that_cannot_run(tmp_path: Path) -> None:
    """It is tried again after ever longer pauses, never in a busy loop, and told in the metric."""
    registry = CollectorRegistry()
    made = follower(tmp_path, registry, binary=Path("/bin/false"))
    started = time.monotonic()
    await until(
        lambda: (value(registry, "anyon_state_replicator_restarts_total") or 0) >= 3, made.tick
    )
    least = sum((pause_after(n) for n in (1, 2)), timedelta())
    assert time.monotonic() - started >= least.total_seconds()
    assert value(registry, "anyon_state_replicating") == 0
    await made.close()


def test_the_pauses() -> None:
    """They double, up to a minute."""
    assert [pause_after(n).total_seconds() for n in (1, 2, 3, 9, 99)] == [1, 2, 4, 60, 60]


def test_it_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    """A kill -9 of the server leaves no Litestream behind: the next server's is the only one."""
    registry = CollectorRegistry()
    made = follower(tmp_path, registry)
    made._write_config()
    program = (
        "import os, subprocess, sys, time\n"
        "from anyon.db import litestream\n"
        "from pathlib import Path\n"
        "child = subprocess.Popen(litestream.follow_command(\n"
        "    litestream.program(), Path(sys.argv[1]), server_pid=os.getpid()))\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "litestream" / "litestream.json")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    child = int(server.stdout.readline())
    deadline = time.monotonic() + PATIENCE
    while b"litestream" not in Path(f"/proc/{child}/exe").readlink().name.encode():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    server.kill()
    server.wait()
    while is_alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_a_store_that_does_not_answer(tmp_path: Path) -> None:
    """A round that fails is told once, and after the store is back all is there."""
    registry = CollectorRegistry()
    vitals = StateVitals(registry)
    made = follower(tmp_path, CollectorRegistry())
    written = tmp_path / "litestream" / "replica" / "ltx"
    await until(lambda: list(written.glob("9/*.ltx")), made.tick)
    await made.close()
    is_down = True
    store = MemoryStore()
    faulty = FaultyStore(store, lambda _number, _name, after: is_down and not after)
    replicator = Replicator(
        replica=Replica(faulty, PlainKeys(), "one", tmp_path / "litestream" / "replica"),
        clock=SystemClock(),
        vitals=vitals,
    )
    snapshotter = Snapshotter(
        database=tmp_path / "anyon.db",
        place=tmp_path / "litestream",
        snapshots=Snapshots(faulty, PlainKeys(), "one"),
        clock=SystemClock(),
        vitals=vitals,
    )
    for _ in range(2):
        await replicator.tick()
        await snapshotter.tick()
    behind = value(registry, "anyon_state_replica_timestamp_seconds")
    assert behind is not None
    assert behind < datetime.now(UTC).timestamp(), "since the start the store has nothing"
    assert math.isnan(value(registry, "anyon_state_snapshot_timestamp_seconds") or 0)
    assert not list(tmp_path.glob("litestream/snapshot.db*"))
    is_down = False
    await replicator.tick()
    await snapshotter.tick()
    for name in ("replica", "snapshot"):
        at = value(registry, f"anyon_state_{name}_timestamp_seconds")
        assert at == pytest.approx(datetime.now(UTC).timestamp(), abs=120)
    found = states(store)[0]
    assert (len(found.replicas), len(found.snapshots)) == (1, 1)
