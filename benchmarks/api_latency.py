"""The interface while 50 tasks stream their output: p99 of looking, against 50 ms.

Fifty tasks in ten projects write a line five times a second each, and a client follows every one of them; meanwhile
one request after the other looks at projects, tasks and leases, twenty a second. Clients and server share the machine, so on
few cores the figure holds the clients' own work too.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import httpx

from anyon.sdk.clients import Client
from anyon.sdk.requests import CreateProject, CreateTask
from anyon.testing.servers import serving
from benchmarks.report import Row, percentile, rounds

PROJECTS = 10
TASKS = 5
LIMIT_MS = 50.0
REQUESTS = rounds(200) * 2
EVERY_SECONDS = 0.05
SCRIPT = "while :; do echo a line of output that says what goes on; sleep 0.2; done"


@asynccontextmanager
async def _streaming(client: Client) -> AsyncIterator[UUID]:
    """Have all tasks run and a client follow each; give one project's id."""
    projects = [
        await client.projects.create(CreateProject(name=f"stream-{n}", default_agent="shell"))
        for n in range(PROJECTS)
    ]
    seen = 0

    async def follow(project: UUID) -> None:
        nonlocal seen
        task = await client.tasks.create(CreateTask(project_id=project, description=SCRIPT))
        has_begun = False
        async for chunk in client.tasks.follow(task.id):
            if chunk.data and not has_begun:
                has_begun = True
                seen += 1

    followers = [
        asyncio.create_task(follow(project.id)) for project in projects for _ in range(TASKS)
    ]
    try:
        deadline = time.monotonic() + 120
        while seen < len(followers):
            if time.monotonic() > deadline:
                raise RuntimeError(f"only {seen} of {len(followers)} tasks stream")
            await asyncio.sleep(0.1)
        yield projects[0].id
    finally:
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)


async def _measure(address: str) -> dict[str, list[float]]:
    """Return the milliseconds of each kind of request, one after the other at a steady pace."""
    times: dict[str, list[float]] = {}
    # The followers have a client of their own: its pool must not be what the measured ones wait for.
    async with (
        Client(address) as client,
        _streaming(client) as project,
        httpx.AsyncClient(base_url=address, timeout=60, trust_env=False) as http,
    ):
        paths = {
            "list of projects": "/api/projects",
            "tasks of a project": f"/api/tasks?project_id={project}",
            "why it is awake": f"/api/projects/{project}/awake",
            "health": "/api/health",
        }
        for number in range(REQUESTS):
            what, path = list(paths.items())[number % len(paths)]
            began = time.perf_counter()
            answer = await http.get(path)
            times.setdefault(what, []).append((time.perf_counter() - began) * 1000)
            answer.raise_for_status()
            await asyncio.sleep(EVERY_SECONDS)
    return times


def run() -> Sequence[Row]:
    """Measure on docker."""
    with (
        tempfile.TemporaryDirectory(prefix="anyon-bench-") as directory,
        serving(Path(directory) / "home", "docker") as server,
    ):
        times = asyncio.run(_measure(server.address))
    every = [one for own in times.values() for one in own]
    return [
        _row("all", every, 0.99, 1.0),
        *(_row(what, own, 0.99, None) for what, own in times.items()),
        _row("all", every, 0.5, None),
    ]


def _row(what: str, times: Sequence[float], share: float, target: float | None) -> Row:
    return Row(
        what=f"{what}, p{100 * share:.0f} while 50 tasks stream",
        value=percentile(times, share),
        unit="ms",
        reference="limit",
        reference_value=LIMIT_MS,
        target_ratio=target,
    )
