"""Carrying a stream of frames over a WebSocket, and ending it with the right code.

1000 comes only after ``{"finished":true}``: clients take it as "never connect again". Else the
code says why: 1012 the server restarts, 1011 the reader fell behind or something failed.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from anyon.api.contexts import Context
from anyon.domain.errors import AnyonError

log = structlog.get_logger(__name__)

DONE, FAILED, RESTARTING = 1000, 1011, 1012
SEND_DEADLINE_SECONDS = 30.0

Op = dict[str, Any]
Frame = list[Op] | None
"""Operations of one JSON Patch; None is the end: ``{"finished":true}``."""


def encode(frame: Frame) -> str:
    """Return a frame's text."""
    content = {"finished": True} if frame is None else {"JsonPatch": frame}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


async def carry(
    websocket: WebSocket, context: Context, name: str, frames: AsyncIterator[Frame]
) -> None:
    """Accept *websocket* and send *frames* until they end, the client leaves or the server closes.

    A source is asked for its next frame only when the one before it is on the wire.
    """
    await websocket.accept()
    context.metrics.stream_opened(name)
    sending = asyncio.create_task(_send(websocket, name, frames))
    others = {
        asyncio.create_task(_until_gone(websocket)),
        asyncio.create_task(context.closing.wait()),
    }
    try:
        await asyncio.wait({sending, *others}, return_when=asyncio.FIRST_COMPLETED)
        code, reason = sending.result() if sending.done() else (RESTARTING, "restarting")
        with suppress(RuntimeError, WebSocketDisconnect):  # it may have left meanwhile
            await websocket.close(code, reason)
    finally:
        context.metrics.stream_closed(name)
        for task in (sending, *others):
            task.cancel()
        await asyncio.gather(sending, *others, return_exceptions=True)


async def _until_gone(websocket: WebSocket) -> None:
    """Drop what a client sends (it has nothing to say) and return when it is gone."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


async def _send(websocket: WebSocket, name: str, frames: AsyncIterator[Frame]) -> tuple[int, str]:
    """Send all frames; return the code and the reason to close with."""
    is_finished = False
    try:
        async for frame in frames:
            async with asyncio.timeout(SEND_DEADLINE_SECONDS):
                await websocket.send_text(encode(frame))
            is_finished = is_finished or frame is None
    except TimeoutError:
        return FAILED, "lagging"
    except AnyonError as error:
        return FAILED, error.code
    except (WebSocketDisconnect, RuntimeError) as error:
        log.debug("stream.lost", stream=name, detail=str(error))
        return FAILED, "lost"
    except Exception:
        log.exception("stream.crashed", stream=name)
        return FAILED, "internal"
    return (DONE, "") if is_finished else (RESTARTING, "restarting")
