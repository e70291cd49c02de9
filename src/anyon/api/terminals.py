"""The route of terminals: bytes both ways over one WebSocket.

Binary frames carry the terminal's bytes. Text frames are JSON: ``{"resize": {"columns": 80,
"rows": 24}}`` from the client, ``{"exit": 0}`` to it at the end. A client that reads slowly slows
its own terminal: nothing is read from it meanwhile.
"""

import asyncio
import json
from contextlib import suppress
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Query
from starlette.websockets import WebSocket, WebSocketDisconnect

from anyon.api.contexts import ActorOf, ContextOf
from anyon.api.sockets import DONE, FAILED, RESTARTING, SEND_DEADLINE_SECONDS
from anyon.domain.errors import AnyonError, NotAllowedError
from anyon.domain.ids import ProjectId
from anyon.domain.layout import WORKSPACE
from anyon.engines.engine import Command, Stream, TerminalSize

router = APIRouter(prefix="/api")
log = structlog.get_logger(__name__)

MAX_SIDE = 1000
_SHELL = "if command -v bash >/dev/null; then exec bash -l; else exec sh -l; fi"


@router.websocket("/projects/{project_id}/terminal")
async def open_terminal(
    *,
    websocket: WebSocket,
    context: ContextOf,
    actor: ActorOf,
    project_id: UUID,
    columns: Annotated[int, Query(ge=1, le=MAX_SIDE)] = 80,
    rows: Annotated[int, Query(ge=1, le=MAX_SIDE)] = 24,
    command: Annotated[str | None, Query(max_length=65536)] = None,
) -> None:
    """Open a shell (or *command*, by ``sh -c``) with a terminal in the project's container."""
    if not actor.may("write"):
        raise NotAllowedError("this token may not open terminals", code="scope_missing")
    stream = await context.services.containers.open_shell(
        actor,
        ProjectId(str(project_id)),
        Command(
            argv=["sh", "-c", command or _SHELL],
            cwd=WORKSPACE,
            env={"TERM": "xterm-256color"},
            terminal=TerminalSize(columns=columns, rows=rows),
        ),
    )
    try:
        await websocket.accept()
        context.metrics.stream_opened("terminal")
        try:
            code, reason = await _run(websocket, stream, context.closing)
        finally:
            context.metrics.stream_closed("terminal")
        with suppress(RuntimeError, WebSocketDisconnect):  # it may have left meanwhile
            await websocket.close(code, reason)
    finally:
        await stream.close()


async def _run(websocket: WebSocket, stream: Stream, closing: asyncio.Event) -> tuple[int, str]:
    showing = asyncio.create_task(_show(websocket, stream))
    typing = asyncio.create_task(_type(websocket, stream))
    others = {typing, asyncio.create_task(closing.wait())}
    try:
        await asyncio.wait({showing, *others}, return_when=asyncio.FIRST_COMPLETED)
        failure = typing.exception() if typing.done() and not typing.cancelled() else None
        if not showing.done() and isinstance(failure, AnyonError):
            return FAILED, failure.code  # it could not be woken for a key
        return showing.result() if showing.done() else (RESTARTING, "restarting")
    finally:
        for task in (showing, *others):
            task.cancel()
        await asyncio.gather(showing, *others, return_exceptions=True)


async def _show(websocket: WebSocket, stream: Stream) -> tuple[int, str]:
    """Send what the terminal shows, then its exit code."""
    try:
        while (piece := await stream.read()) is not None:
            async with asyncio.timeout(SEND_DEADLINE_SECONDS):
                await websocket.send_bytes(piece[1])
        await websocket.send_text(json.dumps({"exit": await stream.wait()}))
    except AnyonError as error:
        return FAILED, error.code
    except (TimeoutError, WebSocketDisconnect, RuntimeError) as error:
        log.debug("terminal.lost", detail=str(error))
        return FAILED, "lost"
    return DONE, ""


async def _type(websocket: WebSocket, stream: Stream) -> None:
    """Give the terminal what is typed, until the client leaves."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            if message.get("bytes") is not None:
                await stream.write(message["bytes"])
            elif (size := resize_of(message.get("text") or "")) is not None:
                await stream.resize(size)
        except AnyonError as error:
            if error.code not in {"stdin_closed", "project_stopped"}:
                raise
            # Typed after the end: what it showed last is still on its way.


def resize_of(text: str) -> TerminalSize | None:
    """Return the size in a client's text frame, or None if it holds no sensible one."""
    try:
        size = json.loads(text)["resize"]
        columns, rows = int(size["columns"]), int(size["rows"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
    if not (1 <= columns <= MAX_SIDE and 1 <= rows <= MAX_SIDE):
        return None
    return TerminalSize(columns=columns, rows=rows)
