"""A whole server without its HTTP: real SQLite, real processes and git over the memory engine."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from anyon.agents.registry import find
from anyon.clock import SystemClock
from anyon.db.databases import Database
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Attempt, Process, Project
from anyon.domain.layout import state_directory
from anyon.domain.states import TaskStatus
from anyon.engines.engine import Channel, Engine
from anyon.engines.memory import MemoryEngine
from anyon.git.repositories import GitRepositories
from anyon.processes.durable import DurableProcesses
from anyon.services import Parts, Services, build
from anyon.services.projects import NewProject
from anyon.services.tasks import NewTask

PATIENCE = 60.0
GRACE = timedelta(seconds=1)


class World:
    """One server over a home; ``reborn`` gives the next life of it."""

    def __init__(
        self,
        home: Path,
        engine: Engine,
        changes: dict[str, Any],
        db: Database | None = None,
        *,
        address: str | None = None,
    ) -> None:
        self.home = home
        self.engine = engine
        self.changes = changes
        self.address = address or str(home / "anyon.db")
        self.db = db or Database(self.address)
        clock = SystemClock()
        self.processes = DurableProcesses(
            engine, lambda project: Path(state_directory(home, project)) / "run", clock
        )
        self.repositories = GitRepositories(self.processes)
        parts: dict[str, Any] = {
            "db": self.db,
            "engine": engine,
            "processes": self.processes,
            "repositories": self.repositories,
            "find_agent": find,
            "clock": clock,
            "home": home,
            "default_agent": "SHELL",
            "stop_grace": GRACE,
        }
        self.services: Services = build(Parts(**{**parts, **changes}))

    async def end(self) -> None:
        """End this life as an orderly shutdown does: what runs inside goes on."""
        await self.services.close()
        await self.processes.close()
        await self.db.close()

    async def reborn(self) -> "World":
        """Return the server's next life over the same home and engine, not yet recovered."""
        await self.end()
        world = World(self.home, self.engine, self.changes, address=self.address)
        await world.db.open()
        return world

    async def project(self, name: str = "demo", **more: Any) -> Project:
        """Make a project."""
        return await self.services.projects.create(LOCAL_ACTOR, NewProject(name=name, **more))

    async def attempt(
        self, project: Project, script: str, *, title: str = "Work", agent: str = "SHELL"
    ) -> Attempt:
        """Make a task and start an attempt at it."""
        new = NewTask(project_id=project.id, title=title, description=script)
        view = await self.services.tasks.create(LOCAL_ACTOR, new)
        return await self.services.attempts.start(LOCAL_ACTOR, view.task.id, agent=agent)

    async def over(self, attempt: Attempt) -> list[Process]:
        """Wait until the attempt's chain is over and return its processes."""

        async def is_over() -> bool:
            view = await self.services.tasks.get(LOCAL_ACTOR, attempt.task_id)
            return view.task.status is not TaskStatus.INPROGRESS

        await until(is_over)
        return list(await self.services.attempts.processes(LOCAL_ACTOR, attempt.id))

    async def printed(self, process: Process, channel: Channel = Channel.STDOUT) -> bytes:
        """Return all that a process has printed, waiting for its end."""
        chunks = self.services.processes.follow(LOCAL_ACTOR, process.id)
        return b"".join([chunk.data async for chunk in chunks if chunk.channel is channel])


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until *holds* says so; fail after a patience that a loaded machine allows for."""
    async with asyncio.timeout(PATIENCE):
        while not await holds():  # noqa: ASYNC110 - what is waited for happens in other processes too
            await asyncio.sleep(0.02)


@asynccontextmanager
async def living(
    home: Path, *, engine: Engine | None = None, **changes: Any
) -> AsyncIterator[World]:
    """Give a server for the length of a block; *changes* replace some of its parts."""
    engine = engine or MemoryEngine(hidden=[home])
    world = World(home, engine, changes)
    await world.db.open()
    try:
        yield world
    finally:
        await world.end()
        await engine.close()
