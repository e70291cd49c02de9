"""A whole server in this process: real services, database, git and processes over the memory engine."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from anyon import services as use_cases
from anyon.agents import registry
from anyon.api.apps import create_app
from anyon.api.servers import Server
from anyon.clock import SystemClock
from anyon.config import Settings, load
from anyon.db.databases import Database
from anyon.domain.layout import state_directory
from anyon.engines.memory import MemoryEngine
from anyon.git.repositories import GitRepositories
from anyon.processes.durable import DurableProcesses
from anyon.sdk.clients import Client
from anyon.services import Parts, Services


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs in this process."""

    app: FastAPI
    services: Services
    settings: Settings
    base_url: str
    server: Server
    client: Client

    @property
    def http(self) -> httpx.AsyncClient:
        """A client that speaks plain HTTP to it; use it as a context manager."""
        return httpx.AsyncClient(base_url=self.base_url, timeout=60, trust_env=False)


Opener = Callable[..., AbstractAsyncContextManager[Running]]


@asynccontextmanager
async def _services(settings: Settings) -> AsyncIterator[Services]:
    settings.home.mkdir(exist_ok=True)
    database = Database(settings.home / "anyon.db")
    await database.open()
    engine = MemoryEngine(hidden=[settings.home])
    processes = DurableProcesses(
        engine,
        lambda project: Path(state_directory(settings.home, project)) / "run",
        SystemClock(),
    )
    built = use_cases.build(
        Parts(
            db=database,
            engine=engine,
            processes=processes,
            repositories=GitRepositories(processes),
            find_agent=registry.find,
            clock=SystemClock(),
            home=settings.home,
            default_agent="SHELL",
        )
    )
    try:
        await built.recover()
        yield built
    finally:
        await built.close()
        await processes.close()
        await engine.close()
        await database.close()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Serve on a free port of the loopback address for as long as the block."""
    async with _services(settings) as services:
        app = create_app(services, settings, agents=list(registry.registry().values()))
        server = Server(app, host="127.0.0.1", port=0)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            assert not serving.done(), "the server did not start"
            await asyncio.sleep(0.01)
        base_url = f"http://127.0.0.1:{server.port}"
        try:
            async with Client(base_url) as client:
                yield Running(app, services, settings, base_url, server, client)
        finally:
            server.should_exit = True
            await serving


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a server whose home is this test's own."""
    return replace(load({"HOME": str(tmp_path)}), home=tmp_path / "home", default_agent="SHELL")


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Running]:
    """A server that asks for no tokens."""
    async with running(settings) as one:
        yield one
