"""What may wake a project is waited for as long as the server takes; everything else has a timeout."""

import asyncio
import http
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import httpx
import pytest
from websockets.asyncio.server import Request, Response, ServerConnection, serve

from anyon.sdk import connections
from anyon.sdk.clients import Client
from anyon.sdk.connections import Connection
from anyon.sdk.errors import ApiError, UnreachableError
from anyon.sdk.requests import Exec, Hold

SLOW_SECONDS = 0.5
QUICK_SECONDS = 0.05


@asynccontextmanager
async def slow_server() -> AsyncIterator[str]:
    """Give the address of a server that accepts WebSockets after a while, as one that restores files."""

    async def late(_: ServerConnection, __: Request) -> Response | None:
        await asyncio.sleep(SLOW_SECONDS)
        return None

    async with serve(ServerConnection.wait_closed, "127.0.0.1", 0, process_request=late) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"http://127.0.0.1:{port}"


async def test_a_terminal_waits_for_a_project_that_wakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files come back in minutes, not within the timeout of a handshake; without it that one strikes."""
    monkeypatch.setattr(connections, "_OPEN_SECONDS", QUICK_SECONDS)
    async with slow_server() as address, Client(address) as client:
        async with client.projects.terminal(uuid4()) as terminal:
            assert terminal.exit_code is None
        connection = Connection(address)
        with pytest.raises(UnreachableError):
            async with connection.websocket("/api/any"):
                pytest.fail("the handshake had no timeout")
        await connection.close()


async def test_work_waits_for_a_project_that_wakes() -> None:
    """Of all calls those that wake have no timeout but for the connection; others keep the client's."""
    seen: dict[str, float | None] = {}

    async def answer(request: httpx.Request) -> httpx.Response:
        seen[request.url.path.rpartition("/")[2]] = request.extensions["timeout"]["read"]
        return httpx.Response(http.HTTPStatus.NOT_FOUND, json={"success": False, "message": "no"})

    project = uuid4()
    async with Client("http://server", transport=httpx.MockTransport(answer)) as client:
        for call in (
            client.projects.exec(project, Exec(argv=["true"])),
            client.lives.hold(project, Hold(reason="r", minutes=1)),
            client.projects.list(),
        ):
            with pytest.raises(ApiError):
                await call
    assert seen == {"exec": None, "holds": None, "projects": 120.0}
