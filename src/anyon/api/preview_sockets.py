"""A WebSocket to a server inside a project: frames both ways, the subprotocol as it chooses."""

import asyncio
from contextlib import suppress

from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from anyon.api.guards import Refusal, refuse
from anyon.api.preview_hosts import Headers
from anyon.api.sockets import FAILED, RESTARTING
from anyon.domain.errors import AnyonError
from anyon.services.previews import Visit

MAX_FRAME_BYTES = 16 * 1024 * 1024
OPEN_SECONDS = 30.0
_HANDSHAKE = (b"host", b"sec-websocket-")
_NO_STATUS, _ABNORMAL = 1005, 1006


async def carry(  # noqa: PLR0917 - the three of ASGI, and what goes in
    visit: Visit,
    scope: Scope,
    receive: Receive,
    send: Send,
    target: str,
    headers: Headers,
    closing: asyncio.Event,
) -> None:
    """Open the same WebSocket inside and carry frames until either side ends.

    Only what the client sends is traffic; pings are answered on each side by itself.
    """
    await receive()  # the opening, which is answered below
    local = next(value for name, value in headers if name == b"host").decode()
    more = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in headers
        if not name.startswith(_HANDSHAKE)
    ]
    try:
        inside = await connect(
            f"ws://{local}{target}",
            sock=visit.socket,
            subprotocols=[Subprotocol(it) for it in scope.get("subprotocols", [])] or None,
            additional_headers=more,
            user_agent_header=None,
            compression=None,
            max_size=MAX_FRAME_BYTES,
            ping_interval=None,
            open_timeout=OPEN_SECONDS,
        ).__aenter__()
    except (InvalidHandshake, OSError, TimeoutError) as error:
        status = error.response.status_code if isinstance(error, InvalidStatus) else 502
        words = "The server in the project opened no WebSocket here."
        await refuse(scope, send, Refusal(max(status, 400), "preview_no_websocket", words, ""))
        return
    try:
        await send({"type": "websocket.accept", "subprotocol": inside.subprotocol})
        code, reason = await _run(visit, inside, receive, send, closing)
        with suppress(RuntimeError, OSError):  # the client may have left meanwhile
            await send({"type": "websocket.close", "code": code, "reason": reason})
    finally:
        await inside.close()


async def _run(
    visit: Visit, inside: ClientConnection, receive: Receive, send: Send, closing: asyncio.Event
) -> tuple[int, str]:
    inwards = asyncio.create_task(_inwards(visit, inside, receive))
    outwards = asyncio.create_task(_outwards(inside, send))
    leaving = asyncio.create_task(closing.wait())
    tasks = {inwards, outwards, leaving}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in (inwards, outwards):
            if task.done():
                return task.result()
        return RESTARTING, "restarting"
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _inwards(visit: Visit, inside: ClientConnection, receive: Receive) -> tuple[int, str]:
    try:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return _told(message.get("code") or 1000), message.get("reason") or ""
            await visit.speak()
            text = message.get("text")
            await inside.send(message["bytes"] if text is None else text)
    except ConnectionClosed as end:
        return _end_of(end)
    except AnyonError as error:
        return FAILED, error.code


async def _outwards(inside: ClientConnection, send: Send) -> tuple[int, str]:
    try:
        while True:
            data = await inside.recv()
            kind = "text" if isinstance(data, str) else "bytes"
            await send({"type": "websocket.send", kind: data})
    except ConnectionClosed as end:
        return _end_of(end)
    except (RuntimeError, OSError):  # the client has gone
        return FAILED, "lost"


def _end_of(end: ConnectionClosed) -> tuple[int, str]:
    if end.rcvd is None:
        return FAILED, "preview_lost"
    return _told(end.rcvd.code), end.rcvd.reason


def _told(code: int) -> int:
    """Return a code that may be sent: two of them only say that none came."""
    return {_NO_STATUS: 1000, _ABNORMAL: FAILED}.get(code, code)
