"""The plan's load test, 10 projects x 5 tasks: Anyon's wall time against a container made for every task.

Both do the same fifty pieces of work on the same engine. The former way starts a container, clones a repository into
it, works and removes it, ten at a time; Anyon makes ten projects and starts all fifty tasks at once, each in a worktree of its
own, and the wall time runs from the first request to the last task's end as a client sees it. Medians of five rounds in turns.
"""

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from anyon.loads.drives import Drive
from anyon.loads.profiles import PROFILES, QUICK_SCRIPT
from anyon.loads.results import Result, latencies
from anyon.sdk.clients import Client
from anyon.testing.servers import serving
from benchmarks.report import Row, rounds
from benchmarks.task_start import IMAGE, make_repository

SERVICES = ("docker", "images")
ROUNDS = rounds(5)
FORMER_AT_ONCE = 10
"""Of the former way's fifty tasks: all fifty at once take an engine longer than ten and ten."""


def _former_task(repository: Path) -> None:
    """Do one task the former way: a container, a clone in it, the work, the container's end."""
    mount = f"{repository}:/source:ro"
    command = ["docker", "run", "-d", "--init", "-v", mount, IMAGE, "sleep", "600"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    container = done.stdout.strip()
    try:
        clone = "git -c safe.directory='*' clone -q /source work && cd work && "
        work = ["docker", "exec", "-w", "/home/anyon", container, "sh", "-c", clone + QUICK_SCRIPT]
        subprocess.run(work, check=True, capture_output=True)
    finally:
        subprocess.run(["docker", "rm", "-f", container], check=True, capture_output=True)


def _former(repository: Path) -> float:
    """Return the seconds of all tasks the former way."""
    began = time.perf_counter()
    with ThreadPoolExecutor(FORMER_AT_ONCE) as pool:
        list(pool.map(_former_task, [repository] * PROFILES["plan"].total_tasks))
    return time.perf_counter() - began


async def _plan(address: str) -> Result:
    async with Client(address) as client:
        drive = Drive(client, PROFILES["plan"], lambda *_: None, prefix="bench")
        return await drive.run(engine_listing=lambda: None)


def run() -> Sequence[Row]:
    """Measure in turns, on docker."""
    walls, formers, firsts = [], [], []
    with tempfile.TemporaryDirectory(prefix="anyon-bench-") as directory:
        repository = Path(directory) / "repository"
        repository.mkdir()
        make_repository(repository)
        with serving(Path(directory) / "home", "docker") as server:
            for _ in range(ROUNDS):
                result = asyncio.run(_plan(server.address))
                if result.failed:
                    raise RuntimeError(f"{result.failed} operations of the load failed")
                walls.append(result.wall_seconds)
                shown = {one.operation: one for one in latencies(result.samples)}
                firsts.append(shown["task's first output"].shares["p50"])
                formers.append(_former(repository))
    former = sorted(formers)[ROUNDS // 2]
    return [
        Row(
            what=what,
            value=sorted(values)[ROUNDS // 2],
            unit="s",
            reference=reference,
            reference_value=former,
            target_ratio=target,
        )
        for what, values, reference, target in (
            ("10 projects x 5 tasks, wall", walls, "docker run, clone, exec, rm for each", 0.5),
            ("a task's first output under it, p50", firsts, "the same, wall", None),
        )
    ]
