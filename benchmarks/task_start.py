"""Warm start of a task: POST to first output byte at a client, against a bare ``docker exec true``.

A project of 300 files in a running container. The time runs from sending `POST /api/tasks` to the first byte of the
task's output at the client, and holds the record, the branch, a worktree and the start of the agent; the reference is what the
bare engine takes to run `true` in a running container, taken in turns with it. *Later of two at once*: a worktree is made ahead
for one task only, so the second of two that start together waits for its files.
"""

import asyncio
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from anyon.sdk.clients import Client
from anyon.sdk.models import Project
from anyon.sdk.requests import CreateProject
from anyon.testing.servers import serving
from benchmarks.report import Row, percentile, rounds

SERVICES = ("docker", "images")
ROUNDS = rounds(25)
PAIRS = rounds(10)
FILES = 300
PAUSE_SECONDS = 0.3
IMAGE = "anyon/workspace:latest"


def make_repository(path: Path) -> None:
    """Make a git repository of FILES files, 2 kB each, in 30 directories."""
    for number in range(FILES):
        file = path / f"package{number % 30}" / f"module{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# module {number}\n" + "x = 'some source text'\n" * 90)
    identity = ["-c", "user.name=Bench", "-c", "user.email=bench@localhost"]
    for words in (
        ["init", "-q", "-b", "main"],
        ["add", "-A"],
        [*identity, "commit", "-q", "-m", "x"],
    ):
        subprocess.run(["git", *words], cwd=path, check=True)


async def start_once(client: Client, raw: httpx.AsyncClient, project: Project) -> float:
    """Return seconds from the POST to the first byte that the client sees, then wait for the end."""
    began = time.perf_counter()
    answer = await raw.post(
        "/api/tasks", json={"project_id": str(project.id), "description": "echo started"}
    )
    task = answer.json()["data"]
    length = 0.0
    async for chunk in client.tasks.follow(task["id"]):
        if chunk.data and not length:
            length = time.perf_counter() - began
    while (await client.tasks.get(task["id"])).has_in_progress_attempt:
        await asyncio.sleep(0.02)
    await asyncio.sleep(PAUSE_SECONDS)
    return length


def bare_exec(container: str) -> float:
    """Return the seconds of one ``docker exec true``."""
    began = time.perf_counter()
    subprocess.run(["docker", "exec", container, "true"], check=True)
    return time.perf_counter() - began


async def measure(
    address: str, repository: Path, container: str
) -> tuple[list[float], list[float], list[float]]:
    """Return task starts and bare execs, taken in turns so that noise meets both; then later ones of pairs.

    Of two starts at once one finds no worktree made ahead, and waits for its files.
    """
    starts, execs, later = [], [], []
    async with Client(address) as client, httpx.AsyncClient(base_url=address, timeout=60) as raw:
        project = await client.projects.create(
            CreateProject(name="bench", git_repo_path=str(repository), default_agent="shell")
        )
        await start_once(client, raw, project)
        for _ in range(ROUNDS):
            execs.append(await asyncio.to_thread(bare_exec, container))
            starts.append(await start_once(client, raw, project))
        for _ in range(PAIRS):
            both = (start_once(client, raw, project) for _ in range(2))
            later.append(max(await asyncio.gather(*both)))
    return starts, execs, later


def run() -> Sequence[Row]:
    """Measure both engines."""
    rows: list[Row] = []
    started = subprocess.run(
        ["docker", "run", "-d", "--init", IMAGE, "sleep", "3600"],
        check=True,
        capture_output=True,
        text=True,
    )
    container = started.stdout.strip()
    try:
        with TemporaryDirectory(prefix="anyon-bench-repository-") as directory:
            repository = Path(directory) / "repository"
            repository.mkdir()
            make_repository(repository)
            for engine in ("docker", "bubblewrap"):
                with serving(Path(directory) / engine, engine) as running:
                    measured = asyncio.run(measure(running.address, repository, container))
                rows += _rows(engine, *measured)
    finally:
        subprocess.run(["docker", "rm", "-f", container], check=True, capture_output=True)
    return rows


def _rows(
    engine: str, starts: Sequence[float], execs: Sequence[float], later: Sequence[float]
) -> list[Row]:
    reference = percentile(execs, 0.5) * 1000
    slowest = 2.0 if engine == "docker" else None  # the design's targets are of docker
    return [
        Row(
            what=f"{what}, {engine}",
            value=percentile(lengths, share) * 1000,
            unit="ms",
            reference="docker exec true, p50",
            reference_value=reference,
            target_ratio=target,
        )
        for what, lengths, share, target in (
            ("task start p50", starts, 0.5, 1.0),
            ("task start p99", starts, 0.99, slowest),
            ("later of two at once p50", later, 0.5, None),
        )
    ]
