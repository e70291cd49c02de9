"""Routes of processes ("execution processes" on the wire), and of what they wrote."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Header, Query
from starlette.responses import StreamingResponse

from anyon.api import shapes
from anyon.api.contexts import ActorOf, Context, ContextOf, actor_of
from anyon.api.envelopes import ERRORS
from anyon.api.waiting import Pump, looked_until
from anyon.domain.actors import Actor
from anyon.domain.entities import Process
from anyon.domain.errors import AnyonError, InvalidInputError, NotFoundError
from anyon.domain.ids import AttemptId, ProcessId, ProjectId, TaskId
from anyon.domain.states import ProcessStatus
from anyon.engines.engine import Channel
from anyon.processes.processes import Chunk
from anyon.sdk import models
from anyon.sdk.models import Envelope

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/api", tags=["processes"], dependencies=[Depends(actor_of)])

HEARTBEAT_SECONDS = 15.0
_CURSOR = re.compile(r"([0-9]{1,15})\.([0-9]{1,15})")
_POLL_SECONDS = 0.1
_RECORDED_SECONDS = 10.0
"""How long a stream waits after an exit until that is recorded."""


@router.get("/execution-processes")
async def list_processes(
    context: ContextOf,
    actor: ActorOf,
    task_attempt_id: UUID,
    show_soft_deleted: bool = False,
) -> Envelope[list[models.ExecutionProcess]]:
    """Return an attempt's processes, oldest first."""
    found = await context.services.attempts.processes(actor, AttemptId(str(task_attempt_id)))
    kept = [one for one in found if show_soft_deleted or not one.dropped]
    return Envelope.of([shapes.process(one) for one in kept])


@router.get("/execution-processes/{process_id}")
async def get_process(
    context: ContextOf, actor: ActorOf, process_id: UUID
) -> Envelope[models.ExecutionProcess]:
    """Return one process."""
    return Envelope.of(shapes.process(await _process(context, actor, process_id)))


@router.post("/execution-processes/{process_id}/stop")
async def stop_process(context: ContextOf, actor: ActorOf, process_id: UUID) -> Envelope[None]:
    """End the process, its whole tree; what it wrote stays."""
    await context.services.processes.kill(actor, ProcessId(str(process_id)))
    return Envelope.of(None)


@router.get("/projects/{project_id}/processes")
async def list_project_processes(
    context: ContextOf, actor: ActorOf, project_id: UUID
) -> Envelope[list[models.ExecutionProcess]]:
    """Return all processes of a project, its commands too, oldest first."""
    found = await context.services.processes.list(actor, ProjectId(str(project_id)))
    return Envelope.of([shapes.process(one) for one in found])


@router.get("/processes/{process_id}/output")
async def get_output(
    *,
    context: ContextOf,
    actor: ActorOf,
    process_id: UUID,
    channel: models.Channel = "stdout",
    offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=1024 * 1024)] = 65536,
    wait: Annotated[float, Query(ge=0, le=60)] = 0,
) -> Envelope[models.OutputChunk]:
    """Return a piece of one output from a byte offset on; ``wait`` seconds for one to come."""
    loop = asyncio.get_running_loop()
    until = loop.time() + wait
    while True:
        # How it stands is read first: what it wrote before that is then all there ever will be.
        is_over = (await _process(context, actor, process_id)).status is not ProcessStatus.RUNNING
        chunk = await context.services.processes.output(
            actor, ProcessId(str(process_id)), Channel(channel), offset, limit
        )
        ended = is_over and len(chunk.data) < limit
        if chunk.data or ended or loop.time() >= until or context.closing.is_set():
            return Envelope.of(shapes.chunk(chunk, finished=ended))
        await asyncio.sleep(_POLL_SECONDS)


_EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    **ERRORS,
    200: {"content": {"text/event-stream": {}}, "description": "Server-sent events."},
}


@router.get(
    "/processes/{process_id}/events", response_class=StreamingResponse, responses=_EVENT_STREAM
)
async def stream_events(
    context: ContextOf,
    actor: ActorOf,
    process_id: UUID,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    last_event_id: Annotated[str | None, Header(max_length=64)] = None,
) -> StreamingResponse:
    """Send both outputs as they come: events ``output`` (a chunk), and ``exit`` (the process).

    An event's id holds the offsets reached, ``<stdout>.<stderr>``; a client that reconnects
    goes on there. ``Last-Event-ID`` wins over ``cursor``. A stream that ends without ``exit``
    was cut: connect again. ``error`` tells what kept the server from reading on.
    """
    process = await _process(context, actor, process_id)
    offsets = _offsets(last_event_id or cursor or "0.0")
    for channel, offset in offsets.items():  # an offset past the end is refused before the stream
        if offset:
            await context.services.processes.output(actor, process.id, channel, offset, 1)
    return _stream(_events(context, actor, process, offsets))


@router.get("/tasks/{task_id}/events", response_class=StreamingResponse, responses=_EVENT_STREAM)
async def stream_task_events(
    context: ContextOf, actor: ActorOf, task_id: UUID
) -> StreamingResponse:
    """Send an event ``process``, the task's newest, and then that process's own events.

    So whoever has just started a task sees its output after one more request. A client that
    reconnects goes on at the process itself, where it was.
    """
    attempts = await context.services.attempts.list(actor, TaskId(str(task_id)))
    found = await context.services.attempts.processes(actor, attempts[0].id) if attempts else ()
    if not found:
        raise NotFoundError("no process of this task was started yet", code="process_unknown")
    return _stream(_task_events(context, actor, found[-1]))


def _stream(events: AsyncIterator[str]) -> StreamingResponse:
    return StreamingResponse(
        events,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _task_events(context: Context, actor: Actor, process: Process) -> AsyncIterator[str]:
    offsets = dict.fromkeys(Channel, 0)
    yield _event("process", shapes.process(process).model_dump_json(), offsets)
    async for event in _events(context, actor, process, offsets):
        yield event


def _offsets(cursor: str) -> dict[Channel, int]:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidInputError(
            "the cursor is not of the form <stdout offset>.<stderr offset>", code="bad_cursor"
        )
    return {Channel.STDOUT: int(match[1]), Channel.STDERR: int(match[2])}


async def _events(
    context: Context, actor: Actor, process: Process, offsets: dict[Channel, int]
) -> AsyncIterator[str]:
    reached = dict(offsets)
    source = context.services.processes.follow(actor, process.id, offsets)
    context.metrics.stream_opened("events")
    try:
        yield ": hello\n\n"
        async with Pump[Chunk](source, context.closing) as pump:
            while True:
                try:
                    chunk = await pump.next(HEARTBEAT_SECONDS)
                except StopAsyncIteration:
                    break
                if chunk is None:
                    yield ": still here\n\n"
                    continue
                reached[chunk.channel] = chunk.next_offset
                shown = shapes.chunk(chunk, finished=False)
                yield _event("output", shown.model_dump_json(), reached)
        ended = None if context.closing.is_set() else await _ended(context, actor, process)
        if ended is not None:
            yield _event("exit", shapes.process(ended).model_dump_json(), reached)
    except AnyonError as error:
        log.warning("events.failed", process=process.id, code=error.code, detail=str(error))
        told = {
            "status": error.status,
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
        }
        yield f"event: error\ndata: {json.dumps(told)}\n\n"
    finally:
        context.metrics.stream_closed("events")


def _event(name: str, data: str, reached: dict[Channel, int]) -> str:
    cursor = f"{reached[Channel.STDOUT]}.{reached[Channel.STDERR]}"
    return f"id: {cursor}\nevent: {name}\ndata: {data}\n\n"


async def _ended(context: Context, actor: Actor, process: Process) -> Process | None:
    """Return the process once its record says that it is over; None if it does not soon."""

    async def look() -> Process:
        return await context.services.processes.get(actor, process.id)

    with context.services.feed.subscribe(process.project_id) as changes:
        found = await looked_until(
            lambda found: found.status is not ProcessStatus.RUNNING,
            look,
            changes=changes,
            concerns=lambda change: change.id == process.id,
            closing=context.closing,
            seconds=_RECORDED_SECONDS,
        )
    return found if found.status is not ProcessStatus.RUNNING else None


async def _process(context: Context, actor: Actor, process_id: UUID) -> Process:
    return await context.services.processes.get(actor, ProcessId(str(process_id)))
