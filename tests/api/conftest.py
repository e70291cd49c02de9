"""A whole server in this process: real services, database, git and processes over the memory engine."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from anyon.api.servers import Server
from anyon.config import Settings, load
from anyon.sdk.clients import Client
from anyon.services import Services
from anyon.wiring.assembly import assembled


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
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Serve on a free port of the loopback address for as long as the block."""
    settings.home.mkdir(exist_ok=True)
    async with assembled(settings) as anyon:
        app, services = anyon.app, anyon.services
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
    return replace(
        load({"HOME": str(tmp_path)}),
        home=tmp_path / "home",
        engine="memory",
        default_agent="SHELL",
    )


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Running]:
    """A server that asks for no tokens."""
    async with running(settings) as one:
        yield one
