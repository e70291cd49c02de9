"""Outputs of processes are in the store while they run and at their end, and come back from it."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from anyon.clock import SystemClock
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Process
from anyon.domain.errors import AnyonError
from anyon.domain.states import ExitReason, ProcessStatus
from anyon.engines.engine import Channel
from anyon.processes import returns
from anyon.processes.directories import RunDirectory
from anyon.processes.outputs import read
from anyon.services.logs import EVERY
from anyon.storage import keyfiles
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.keys import FileKeys
from anyon.storage.logs import Logs
from anyon.storage.objects import StoreUnavailableError
from anyon.testing.store_faults import FaultyStore
from anyon.testing.worlds import World, living, until


class Late(SystemClock):
    """The machine's clock, that a test may put forward."""

    def __init__(self) -> None:
        self.later = 0.0

    def monotonic(self) -> float:
        """Return steady seconds, put forward."""
        return super().monotonic() + self.later


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    """Return logs in an encrypted store."""
    keyfiles.make(tmp_path / "keys.json")
    return Logs(MemoryStore(), FileKeys(tmp_path / "keys.json"))


async def started(world: World, script: str) -> Process:
    """Run a script in a new project."""
    project = await world.project()
    return await world.services.processes.exec(LOCAL_ACTOR, project.id, ["sh", "-c", script])


async def tick(world: World) -> None:
    """Keep what is due."""
    assert world.services.logs is not None
    await world.services.logs.tick()


async def is_kept(world: World, logs: Logs, process: Process) -> bool:
    """Tick, and say whether all of it is kept."""
    await tick(world)
    project = await world.services.projects.get(LOCAL_ACTOR, process.project_id)
    return logs.kept(f"{project.user_id}/{project.id}", process.id).is_whole


async def lose(world: World, process: Process) -> None:
    """Remove what this machine has of the outputs of a process whose end is recorded, as its loss would."""

    async def is_over() -> bool:
        found = await world.services.processes.get(LOCAL_ACTOR, process.id)
        return found.status is not ProcessStatus.RUNNING

    await until(is_over)
    shutil.rmtree(world.services.homes.state(process.project_id) / "run")


async def test_a_log_comes_back(tmp_path: Path, logs: Logs) -> None:
    """Both outputs, the exit and its time are what they were; a repeat reads what is here."""
    async with living(tmp_path / "home", logs=logs) as world:
        process = await started(world, "echo out; echo err >&2; exit 3")
        assert await world.printed(process) == b"out\n"
        await until(lambda: is_kept(world, logs, process))
        before = await world.processes.state(process.project_id, process.id)
        await lose(world, process)
        chunk = await world.services.processes.output(
            LOCAL_ACTOR, process.id, Channel.STDOUT, 0, 100
        )
        assert chunk.data == b"out\n"
        assert await world.printed(process, Channel.STDERR) == b"err\n"
        after = await world.processes.state(process.project_id, process.id)
        assert before is not None
        assert after is not None
        assert after.exit is not None
        assert (after.exit.code, after.exit.reason) == (3, ExitReason.EXITED)
        assert abs(after.started_at - before.started_at) < timedelta(seconds=1)
        assert (after.stdout_bytes, after.stderr_bytes) == (4, 4)


async def test_what_runs_is_kept_every_minute(tmp_path: Path, logs: Logs) -> None:
    """Not sooner; what was kept of it comes back after the loss, ended machine_lost."""
    clock = Late()
    async with living(tmp_path / "home", logs=logs, clock=clock) as world:
        process = await started(
            world, "echo first; while [ ! -e go ]; do sleep 0.05; done; echo second; sleep 600"
        )
        project = await world.services.projects.get(LOCAL_ACTOR, process.project_id)
        where = f"{project.user_id}/{project.id}"

        async def has(size: int) -> bool:
            state = await world.processes.state(process.project_id, process.id)
            return state is not None and state.stdout_bytes == size

        await until(lambda: has(6))
        await tick(world)
        assert logs.kept(where, process.id).offsets == {"stdout": 6}
        (Path(project.path) / "go").touch()
        await until(lambda: has(13))
        await tick(world)
        assert logs.kept(where, process.id).offsets == {"stdout": 6}
        clock.later += EVERY.total_seconds() + 1
        await tick(world)
        assert logs.kept(where, process.id).offsets == {"stdout": 13}
        await world.services.processes.kill(LOCAL_ACTOR, process.id)
    found = logs.fetch(where, process.id)
    assert found is not None
    assert b"".join(data for _, data in found.pieces["stdout"]) == b"first\nsecond\n"


async def test_a_restart_keeps_what_ended_meanwhile(tmp_path: Path, logs: Logs) -> None:
    """A process that ended while no loop looked is kept by the next life of the server."""
    async with living(tmp_path / "home", logs=logs) as world:
        process = await started(world, "echo done")
        await world.printed(process)
        again = await world.reborn()
        try:
            await again.services.recover()
            await until(lambda: is_kept(again, logs, process))
        finally:
            await again.end()


async def test_a_big_output_is_bounded(tmp_path: Path, logs: Logs) -> None:
    """Of much output head and tail are kept, and the middle is told as dropped when it comes back."""
    async with living(tmp_path / "home", logs=logs, output_cap_bytes=64 * 1024) as world:
        process = await started(world, "seq 1 100000; echo end")
        whole = "".join(f"{n}\n" for n in range(1, 100001)) + "end\n"
        await world.printed(process)
        await until(lambda: is_kept(world, logs, process))
        await lose(world, process)
        chunks = [
            chunk
            async for chunk in world.services.processes.follow(LOCAL_ACTOR, process.id)
            if chunk.channel is Channel.STDOUT
        ]
        kept = sum(len(chunk.data) for chunk in chunks)
        assert 16 * 1024 <= kept <= 128 * 1024
        assert sum(chunk.dropped_bytes for chunk in chunks) + kept == len(whole)
        assert b"".join(chunk.data for chunk in chunks).endswith(b"100000\nend\n")
        for chunk in chunks:
            at = chunk.offset
            assert whole[at : at + len(chunk.data)].encode() == chunk.data


async def test_a_store_that_does_not_answer(tmp_path: Path) -> None:
    """Keeping is tried again; reading a log that is only there is an error, never an empty output."""
    is_down = True
    store = FaultyStore(MemoryStore(), lambda _number, _name, after: is_down and not after)
    keyfiles.make(tmp_path / "keys.json")
    kept = Logs(store, FileKeys(tmp_path / "keys.json"))
    clock = Late()
    async with living(tmp_path / "home", logs=kept, clock=clock) as world:
        process = await started(world, "echo out")
        await world.printed(process)
        await tick(world)
        is_down = False

        async def later() -> bool:
            clock.later += EVERY.total_seconds()
            return await is_kept(world, kept, process)

        await until(later)
        await lose(world, process)
        is_down = True
        with pytest.raises(StoreUnavailableError):
            await world.services.processes.output(LOCAL_ACTOR, process.id, Channel.STDOUT, 0, 9)
        is_down = False
        assert await world.printed(process) == b"out\n"


async def test_a_damaged_log(tmp_path: Path) -> None:
    """A piece that is not what was kept is an error, and nothing of it is shown."""
    store = MemoryStore()
    keyfiles.make(tmp_path / "keys.json")
    kept = Logs(store, FileKeys(tmp_path / "keys.json"))
    async with living(tmp_path / "home", logs=kept) as world:
        process = await started(world, "echo out")
        await world.printed(process)
        await until(lambda: is_kept(world, kept, process))
        for info in list(store.list("")):
            if "stdout" in info.key:
                store.put(info.key, store.get(info.key).data[:-1])
        await lose(world, process)
        with pytest.raises(AnyonError) as caught:
            await world.services.processes.output(LOCAL_ACTOR, process.id, Channel.STDOUT, 0, 9)
        assert caught.value.code == "damaged"


@pytest.mark.parametrize(
    ("pieces", "size", "gap"),
    [
        ([], 0, None),
        ([(0, b"abc")], 3, None),
        ([(0, b"abc"), (3, b"d")], 4, None),
        ([(0, b"abc"), (9, b"d")], 10, (3, 9)),
        ([(0, b"abc"), (5, b"d"), (9, b"e")], 10, (3, 9)),
        ([(0, b"abc")], 7, (3, 7)),
        ([(2, b"c")], 3, (0, 2)),
    ],
)
def test_what_was_not_kept(
    pieces: list[tuple[int, bytes]], size: int, gap: tuple[int, int] | None
) -> None:
    """One range, from the first gap to the last, is what is not there."""
    assert returns.dropped(pieces, size) == gap


def test_one_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    """Nothing is written over the outputs of a process that is on this machine."""
    at = datetime.now(UTC)
    given = {"code": 0, "reason": ExitReason.EXITED, "started_at": at, "ended_at": at}
    for text in (b"first", b"second"):
        returns.put_back(
            tmp_path / "run",
            "p",
            pieces={Channel.STDOUT: [(0, text)]},
            sizes={},
            **given,  # type: ignore[arg-type]
        )
    directory = RunDirectory(tmp_path / "run").started("p")
    with directory:
        assert read(directory, Channel.STDOUT, 0, 99) == (0, b"first")
    assert sorted(path.name for path in (tmp_path / "run" / "p").iterdir()) == [
        "exit",
        "pid",
        "stderr",
        "stdout",
    ]
