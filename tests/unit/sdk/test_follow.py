"""Following a process over connections that break."""

import base64
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from anyon.sdk.clients import Client
from anyon.sdk.errors import ApiError, UnreachableError

OUTPUT = b"0123456789" * 10
PROCESS = "00000000-0000-4000-8000-00000000000a"
_AT = "2026-01-01T00:00:00Z"
EXECUTION = {
    "id": PROCESS,
    "task_attempt_id": None,
    "run_reason": "codingagent",
    "executor_action": {},
    "before_head_commit": None,
    "after_head_commit": None,
    "status": "running",
    "exit_code": None,
    "dropped": False,
    "started_at": _AT,
    "completed_at": None,
    "created_at": _AT,
    "updated_at": _AT,
}


def event(start: int, end: int) -> bytes:
    """Return one output event."""
    data = {
        "channel": "stdout",
        "offset": start,
        "next_offset": end,
        "dropped_bytes": 0,
        "data": base64.b64encode(OUTPUT[start:end]).decode(),
        "finished": False,
    }
    return f"id: {end}.0\nevent: output\ndata: {json.dumps(data)}\n\n".encode()


class BrokenServer(httpx.AsyncBaseTransport):
    """Serves the output from the cursor on, and breaks each connection after one piece."""

    def __init__(self) -> None:
        self.cursors: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one connection."""
        self.cursors.append(request.headers["last-event-id"])
        start = int(self.cursors[-1].split(".")[0])

        async def body() -> AsyncIterator[bytes]:
            if start >= len(OUTPUT):
                yield b"event: exit\ndata: {}\n\n"
                return
            if start == 40 and len(self.cursors) == 2:
                return  # an end without "exit": the server is about to go
            yield event(start, start + 40 if start < 80 else len(OUTPUT))
            # Half an event, then the connection is gone.
            yield b"id: 9999.0\nevent: output\nda"
            raise httpx.ReadError("connection reset")

        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body())


async def test_every_byte_comes_once_over_broken_connections() -> None:
    """After each break the client goes on at the offset that it has reached, and no byte is lost."""
    server = BrokenServer()
    async with Client("http://server", transport=server) as client:
        got = b"".join([chunk.data async for chunk in client.processes.follow(PROCESS)])
    assert got == OUTPUT
    assert server.cursors == ["0.0", "40.0", "40.0", "80.0", "100.0"]


async def test_a_task_that_is_followed_over_a_break() -> None:
    """What is cut is gone on with at the process that the stream told first, where it was."""
    server = BrokenServer()
    told = json.dumps(EXECUTION)

    class Server(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            """Tell the process and a piece, then break; afterwards as the other server."""
            if "/tasks/" not in request.url.path:
                return await server.handle_async_request(request)

            async def body() -> AsyncIterator[bytes]:
                yield f"id: 0.0\nevent: process\ndata: {told}\n\n".encode() + event(0, 20)
                raise httpx.ReadError("connection reset")

            return httpx.Response(
                200, headers={"content-type": "text/event-stream"}, content=body()
            )

    async with Client("http://server", transport=Server()) as client:
        got = b"".join([chunk.data async for chunk in client.tasks.follow(PROCESS)])
    assert got == OUTPUT
    assert server.cursors[0] == "20.0"


async def test_patience_ends() -> None:
    """A server that stays away is told, not waited for for ever."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async with Client("http://server", transport=httpx.MockTransport(refuse)) as client:
        with pytest.raises(UnreachableError):
            async for _ in client.processes.follow(PROCESS, patience=0):
                pass


@pytest.mark.parametrize(("status", "calls"), [(404, 1), (503, 2)])
async def test_an_error_in_the_stream_is_told(status: int, calls: int) -> None:
    """What cannot pass is raised at once, what may pass after patience has ended."""
    told = {"status": status, "code": "c", "message": "m", "hint": "h"}
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        text = f"event: error\ndata: {json.dumps(told)}\n\n"
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, text=text)

    async with Client("http://server", transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(ApiError) as caught:
            async for _ in client.processes.follow(PROCESS, patience=0):
                pass
    assert (caught.value.status, caught.value.code, len(seen)) == (status, "c", calls)


async def test_an_error_carries_code_and_hint() -> None:
    """What the server tells arrives whole; what is no envelope is told as it is."""
    told = {
        "success": False,
        "data": None,
        "message": "no",
        "error_data": {"code": "c", "hint": "h"},
    }
    answers = iter([httpx.Response(409, json=told), httpx.Response(502, text="<html>bad gateway")])
    transport = httpx.MockTransport(lambda _: next(answers))
    async with Client("http://server", transport=transport) as client:
        with pytest.raises(ApiError) as caught:
            await client.health()
        assert (caught.value.status, caught.value.code, caught.value.hint) == (409, "c", "h")
        with pytest.raises(ApiError) as caught:
            await client.health()
        assert (caught.value.status, caught.value.code) == (502, "http_502")
