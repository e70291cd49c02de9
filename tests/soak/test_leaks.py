"""Nothing grows: thousands of short tasks over projects that come, sleep, wake and go.

The short form runs in CI; ``./test leaks [TASKS] [ENGINE]`` is the long one and prints the trends.
"""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from tests.docker_fixtures import socket_or_skip

from anyon.sdk.clients import Client
from anyon.sdk.models import Project
from anyon.sdk.requests import CreateProject, CreateTask
from anyon.testing.leaks import Reading, Subject, read, trends
from anyon.testing.servers import ServerProcess, serving
from anyon.testing.worlds import until

TASKS = int(os.environ.get("ANYON_LEAK_TASKS", "0"))
ENGINES = os.environ.get("ANYON_LEAK_ENGINES", "bubblewrap docker").split()
PROJECTS = 20 if TASKS else 3
TASKS_AT_ONCE = 5
"""In each project that works."""
PROJECTS_AT_ONCE = 4
ESTABLISHED = "01"
REPLACED = 2
"""How many projects are deleted and made anew in each round."""
SHORT_ROUNDS = 4
SHORT_ALLOWED = {
    "file_descriptors": 12,  # threads that come late open the database each for itself
    "threads": 4,
    "zombies": 0,
    "cgroups": 0,
    "networks": 0,
    "rows": 10,  # events of what was seen a moment earlier or later
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(max(300, 2 * TASKS))]

SETTINGS = {
    "ANYON_RECONCILE_INTERVAL": "500ms",
    "ANYON_FREEZE_AFTER": "1s",
    "ANYON_UNDO_WINDOW": "1s",
    "ANYON_DEFAULT_AGENT": "SHELL",
    "ANYON_WAKES_PER_HOUR": "0",
    "ANYON_CHECKPOINT_INTERVAL": "5s",
    "ANYON_LOG_KEPT": "256KiB",  # full before the warm-up ends: it is no growth of the disk
}


@pytest.fixture(params=ENGINES)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server whose projects fall asleep after a second, and whose deleted ones are forgotten soon."""
    if request.param == "docker":
        socket_or_skip()
    with serving(tmp_path / "home", request.param, **SETTINGS) as running:
        yield running


class Soak:
    """Rounds of work on a server, and a reading at rest after each."""

    _client: Client

    def __init__(self, server: ServerProcess, engine: str) -> None:
        self._server = server
        self._engine = engine
        self._marks: set[str] = set()
        self._turns = asyncio.Semaphore(PROJECTS_AT_ONCE)
        self._made = 0
        self.projects: list[Project] = []
        self.tasks = 0

    async def round(self) -> Reading:
        """Replace some projects, run tasks in all, let all fall asleep, and read.

        What the client keeps connected would be counted among the server's descriptors: it goes first.
        """
        async with Client(self._server.address) as self._client:
            await self._all()
            await until(self._is_at_rest)
        await until(self._is_alone)
        return await self.reading()

    async def _all(self) -> None:
        for old in self.projects[:REPLACED]:
            await self._client.projects.delete(old.id)
        del self.projects[:REPLACED]
        while len(self.projects) < PROJECTS:
            new = CreateProject(name=f"leaks-{self._made}")
            self._made += 1
            self.projects.append(await self._client.projects.create(new))
        await asyncio.gather(*(self._work(project.id) for project in self.projects))

    async def _work(self, project: UUID) -> None:
        async with self._turns:
            await asyncio.gather(*(self._task(project) for _ in range(TASKS_AT_ONCE)))
            self.tasks += TASKS_AT_ONCE

    async def _task(self, project: UUID) -> None:
        new = CreateTask(project_id=project, description="echo $$ > number; echo done")
        task = await self._client.tasks.create(new)
        async for _ in self._client.tasks.follow(task.id):
            pass
        await until(lambda: self._is_over(task.id))
        assert not (await self._client.tasks.get(task.id)).last_attempt_failed

    async def _is_over(self, task: UUID) -> bool:
        return not (await self._client.tasks.get(task)).has_in_progress_attempt

    async def reading(self) -> Reading:
        """Read what the server holds now."""
        self._marks.update(str(project.id) for project in self.projects)
        instance = ""
        if self._engine == "docker":
            instance = self._see_containers()
        subject = Subject(
            pid=self._server.pid,
            home=self._server.home,
            marks=frozenset(self._marks),
            instance=instance,
        )
        return await asyncio.to_thread(read, subject, self.tasks)

    async def _is_at_rest(self) -> bool:
        standing = await self._client.projects.list()
        asleep = all(project.phase == "frozen" for project in standing)
        return asleep and not await self._client.lives.deleted()

    async def _is_alone(self) -> bool:
        table = await asyncio.to_thread(Path("/proc/net/tcp").read_text)
        port = f":{self._server.port:04X}"
        ours = [line.split() for line in table.splitlines()[1:]]
        return not any(it[1].endswith(port) and it[3] == ESTABLISHED for it in ours)

    def _see_containers(self) -> str:
        """Keep the containers' ids as marks, and return the server's instance label."""
        first = f"project-{self.projects[0].id}"
        label = '{{index .Config.Labels "dev.anyon.instance"}}'
        instance = _docker("inspect", "--format", label, first)
        own = f"label=dev.anyon.instance={instance}"
        self._marks.update(_docker("ps", "-aq", "--no-trunc", "--filter", own).split())
        return instance


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


async def test_nothing_grows(server: ServerProcess, request: pytest.FixtureRequest) -> None:
    """After as many projects and tasks as one likes, the server holds what it held before them."""
    engine = request.node.callspec.params["server"]
    soak = Soak(server, engine)
    await soak.round()
    rounds = TASKS // (PROJECTS * TASKS_AT_ONCE) if TASKS else SHORT_ROUNDS
    began = time.monotonic()
    readings = [await soak.round() for _ in range(rounds)]
    if not TASKS:
        check_short(readings)
        return
    found = trends(readings)
    each = (time.monotonic() - began) / (PROJECTS * TASKS_AT_ONCE * rounds) * 1000
    print(f"\n{engine}: {soak.tasks} tasks, {soak._made} projects, {each:.0f} s per 1,000 tasks")
    for one in found:
        print(
            f"{one.quantity:17} {one.first:14.0f} -> {one.last:14.0f}"
            f"   {one.growth:+12.1f} (±{one.noise:.1f}) per 1,000 tasks"
            f"   {'flat' if one.is_flat else 'GROWS'}"
        )
    assert [one.quantity for one in found if not one.is_flat] == []


def check_short(readings: list[Reading]) -> None:
    """So few tasks show no trend; nothing may have grown by one for each project or task."""
    first, last = readings[0], readings[-1]
    grown = {
        name: (first.values[name], last.values[name])
        for name, allowed in SHORT_ALLOWED.items()
        if last.values[name] > first.values[name] + allowed
    }
    assert grown == {}
