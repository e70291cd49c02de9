"""Servers that kill themselves before or after each of their writes, and the lives after them.

`dying_server.py HOME`: for each of its writes, and each side of it, one server does the main job
and dies there; the next one takes up what it left, and everything is looked at. So too for one
that is killed while its agent prints. The sweep ends when a server came through without dying: a
write that is added to the job is swept by itself. One process, many forks: so each life costs no
start of Python. A line tells each life; the last line is `ok` and the number of deaths.
"""

import asyncio
import os
import signal
import sys
import time
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from anyon.db import processes as process_rows
from anyon.db.databases import Database
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Attempt, Project
from anyon.domain.states import Phase, ProcessStatus, RunReason, TaskStatus
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.testing.worlds import World, until

CHAIN = [RunReason.SETUPSCRIPT, RunReason.CODINGAGENT, RunReason.CLEANUPSCRIPT]


class DyingDatabase(Database):
    """Dies at one of its writes, as by kill -9."""

    def __init__(self, path: Path, *, side: str, at: int) -> None:
        super().__init__(path)
        self._side = side
        self._at = at
        self._count = 0

    async def write(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        """Write, or die."""
        self._count += 1
        is_last = self._count == self._at
        if is_last and self._side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = await super().write(fn, *args, **kwargs)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def world_of(home: Path, db: Database | None = None) -> World:
    """Return a server over the engine whose containers outlive it."""
    engine = BubblewrapEngine(state=home / "engine", hidden=[home])
    return World(home, engine, {}, db)


async def live(home: Path, side: str, at: int, script: str = "echo x >> ran.txt") -> None:
    """Do the main job once, or die in it."""
    world = world_of(home, DyingDatabase(home / "anyon.db", side=side, at=at))
    await world.db.open()
    await world.services.recover()
    project = await world.project(
        setup_script="echo x >> /workspace/setups", cleanup_script="echo x >> cleaned.txt"
    )
    attempt = await world.attempt(project, script)
    await world.over(attempt)
    await world.services.attempts.merge(LOCAL_ACTOR, attempt.id)
    await world.services.attempts.delete_worktree(LOCAL_ACTOR, attempt.id)
    await world.end()


async def live_on(home: Path, printed: bytes = b"") -> None:
    """Take up what was left and look at all of it; end with nothing left."""
    world = world_of(home)
    await world.db.open()
    await world.services.recover()

    async def is_quiet() -> bool:
        return await world.db.read(process_rows.open_ones) == []

    await until(is_quiet)
    for project in await world.services.projects.list(LOCAL_ACTOR):
        await check_project(world, project, printed)
        await world.services.projects.delete(LOCAL_ACTOR, project.id)
    assert list(await world.engine.list()) == []
    await world.services.homes.empty_trash()
    for place in ("projects/*/*", "state/*", "trash/*"):
        assert list(home.glob(place)) == [], place
    await world.end()
    await world.engine.close()


async def check_project(world: World, project: Project, printed: bytes) -> None:
    """Look at a project that was made: its tasks are done, or can be worked on."""
    assert project.phase is Phase.RUNNING, project.phase
    assert len(await world.engine.list()) == 1
    for view in await world.services.tasks.list(LOCAL_ACTOR, project.id):
        for attempt in await world.services.attempts.list(LOCAL_ACTOR, view.task.id):
            assert view.task.status in {TaskStatus.INREVIEW, TaskStatus.DONE}, view.task.status
            await check_attempt(world, project, attempt, printed)


async def check_attempt(world: World, project: Project, attempt: Attempt, printed: bytes) -> None:
    """Look at an attempt: each link of its chain ran once, and its work is there once."""
    processes = await world.services.attempts.processes(LOCAL_ACTOR, attempt.id)
    assert [process.run_reason for process in processes] == CHAIN, processes
    assert {process.status for process in processes} == {ProcessStatus.COMPLETED}, processes
    assert await world.printed(processes[1]) == printed
    workspace = Path(project.path)
    if attempt.merge_commit is None:
        await world.services.attempts.merge(LOCAL_ACTOR, attempt.id)
    for name in ("setups", "ran.txt", "cleaned.txt"):
        assert (workspace / name).read_text() == "x\n", name
    await world.services.attempts.delete_worktree(LOCAL_ACTOR, attempt.id)
    await world.services.attempts.delete_worktree(LOCAL_ACTOR, attempt.id)


def fork(work: Coroutine[Any, Any, None]) -> int:
    """Run *work* in a process of its own and return its id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            asyncio.run(work)
            status = 0
        except BaseException:  # noqa: BLE001 - a fork must end here, whatever happens
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    work.close()
    return pid


def end_of(pid: int) -> int:
    """Wait for a fork; its exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def middle(home: Path) -> int:
    """Kill a server while its agent prints; return how the life after it ended."""
    home.mkdir()
    lines = "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo line $i; sleep 0.02; done"
    pid = fork(live(home, "never", 0, f"{lines}; echo x >> ran.txt"))
    while not any(b"line 5" in file.read_bytes() for file in home.glob("state/*/run/*/stdout")):
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    end_of(pid)
    printed = "".join(f"line {number}\n" for number in range(1, 101))
    return end_of(fork(live_on(home, printed.encode())))


def main() -> int:
    """Sweep, and return whether all lives went well."""
    top, deaths = Path(sys.argv[1]), 0
    if middle(top / "middle") != 0:
        return 1
    for at in range(1, 200):
        ends = []
        for side in ("before", "after"):
            home = top / f"{side}-{at}"
            home.mkdir()
            ends.append(end_of(fork(live(home, side, at))))
            after = end_of(fork(live_on(home)))
            print(f"life {side} {at}: {ends[-1]} then {after}", flush=True)
            if after != 0 or ends[-1] not in {0, -signal.SIGKILL}:
                return 1
        deaths += ends.count(-signal.SIGKILL)
        if ends == [0, 0]:
            print(f"ok {deaths}")
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
