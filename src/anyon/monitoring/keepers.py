"""The keeper: a process that keeps the programs of a plan running until it is told to end.

``python -m anyon.monitoring.keepers DIRECTORY`` reads ``plan.json`` there. It holds a lock on
``keeper.lock`` for as long as it lives, so that whoever asks knows, and nobody signals a stranger
that has its process id. TERM ends it and all that it keeps, HUP lets them read their
configuration anew. Should it die otherwise, the kernel ends what it kept.
"""

import asyncio
import ctypes
import fcntl
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from anyon.monitoring.programs import Program

PLAN, LOCK = "plan.json", "keeper.lock"
GRACE_SECONDS = 20.0
_PAUSES = (1, 2, 4, 8, 15, 30)
_STEADY_SECONDS = 60.0
_LARGEST_LOG_BYTES = 16 * 1024 * 1024
_RELOADING = frozenset({"prometheus", "alertmanager"})
_PR_SET_PDEATHSIG = 1


def plan_text(programs: Sequence[Program]) -> str:
    """Return a plan as it stands in its file."""
    return json.dumps(
        [
            {
                "name": it.name,
                "argv": list(it.argv),
                "port": it.port,
                "ready_path": it.ready_path,
                "env": dict(it.env),
            }
            for it in programs
        ],
        indent=2,
    )


def read_plan(directory: Path) -> Sequence[Program]:
    """Return the plan of a directory, nothing where there is none."""
    try:
        found = json.loads((directory / PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    return tuple(Program(**one) for one in found)


def log_of(directory: Path, name: str) -> Path:
    """Return where a program's words go."""
    return directory / "logs" / f"{name}.log"


def keeper_of(directory: Path) -> int | None:
    """Return the process id of the directory's keeper, None where none is alive."""
    try:
        with (directory / LOCK).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or b"0") or None
            return None
    except FileNotFoundError:
        return None


class Keeper:
    """Keeps programs running; one that ends is started again, ever more slowly if it keeps ending."""

    def __init__(self, directory: Path, programs: Sequence[Program]) -> None:
        self._directory = directory
        self._programs = programs
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._ending = asyncio.Event()

    async def keep(self) -> None:
        """Run until told to end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        async with asyncio.TaskGroup() as group:
            for program in self._programs:
                group.create_task(self._keep(program), name=program.name)

    def _reload(self) -> None:
        for name, process in self._running.items():
            if name in _RELOADING and process.returncode is None:
                process.send_signal(signal.SIGHUP)

    async def _keep(self, program: Program) -> None:
        loop, failures = asyncio.get_running_loop(), 0
        while not self._ending.is_set():
            began = loop.time()
            process = await self._started(program)
            self._running[program.name] = process
            over = asyncio.create_task(process.wait())
            ending = asyncio.create_task(self._ending.wait())
            await asyncio.wait({over, ending}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            if self._ending.is_set():
                await self._end(process, over)
                return
            failures = 0 if loop.time() - began > _STEADY_SECONDS else failures + 1
            pause = _PAUSES[min(failures, len(_PAUSES)) - 1] if failures else 0
            print(f"{program.name} ended with {over.result()}; again in {pause} s", flush=True)  # noqa: T201 - the keeper's log
            await _wait(self._ending, pause)

    async def _started(self, program: Program) -> asyncio.subprocess.Process:
        path = log_of(self._directory, program.name)
        is_large = path.exists() and path.stat().st_size > _LARGEST_LOG_BYTES
        with path.open("wb" if is_large else "ab") as log:
            return await asyncio.create_subprocess_exec(
                *program.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **program.env},
                preexec_fn=_die_with_the_keeper,
            )

    @staticmethod
    async def _end(process: asyncio.subprocess.Process, over: asyncio.Task[int]) -> None:
        if process.returncode is None:
            process.terminate()
        _, still = await asyncio.wait({over}, timeout=GRACE_SECONDS)
        if still:
            process.kill()
            await over


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def _die_with_the_keeper() -> None:
    """Runs in the child: the kernel sends it TERM when its parent goes, however that goes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def main() -> int:
    """Keep the plan of the directory that is named; 1 where another keeper has it."""
    directory = Path(sys.argv[1])
    with (directory / LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 1
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        asyncio.run(Keeper(directory, read_plan(directory)).keep())
    return 0


if __name__ == "__main__":
    sys.exit(main())
