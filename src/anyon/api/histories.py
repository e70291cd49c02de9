"""Routes of what became of a project's past: its events as a stream, and work that was saved."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import StreamingResponse

from anyon.api.contexts import ActorOf, Context, ContextOf, actor_of
from anyon.api.envelopes import ERRORS
from anyon.api.waiting import Pump
from anyon.domain.actors import Actor
from anyon.domain.entities import Event
from anyon.domain.errors import AnyonError, InvalidInputError
from anyon.domain.ids import ProjectId
from anyon.sdk import lives
from anyon.sdk.models import Envelope
from anyon.sdk.requests import RestoreWork
from anyon.sdk.saved_work import SavedWork
from anyon.services.feed import Change, LagError

router = APIRouter(prefix="/api/projects", tags=["lives"], dependencies=[Depends(actor_of)])
log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 15.0
_MOST = 2**53
_EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    **ERRORS,
    200: {"content": {"text/event-stream": {}}, "description": "Server-sent events."},
}


@router.get(
    "/{project_id}/events/stream", response_class=StreamingResponse, responses=_EVENT_STREAM
)
async def stream_events(
    context: ContextOf,
    actor: ActorOf,
    project_id: UUID,
    after: Annotated[int, Query(ge=0, le=_MOST)] = 0,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> StreamingResponse:
    """Send what happens to the project as it happens, from the event numbered *after* on; wakes nothing.

    An event's id is its number; a client that reconnects goes on there (``Last-Event-ID`` wins).
    """
    begin = _number(last_event_id) if last_event_id else after
    project = ProjectId(str(project_id))
    await context.services.outlooks.events(actor, project, after=begin)  # refused before the stream
    return StreamingResponse(
        _events(context, actor, project, begin),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.get("/{project_id}/saved-work")
async def list_saved_work(
    context: ContextOf, actor: ActorOf, project_id: UUID
) -> Envelope[list[SavedWork]]:
    """Return the unmerged work that was saved when worktrees were removed, newest first."""
    found = await context.services.saved_work.list(actor, ProjectId(str(project_id)))
    return Envelope.of(
        [
            SavedWork(
                ref=it.ref, commit=it.commit, attempt_id=UUID(it.attempt), saved_at=it.saved_at
            )
            for it in found
        ]
    )


@router.post("/{project_id}/saved-work/restore")
async def restore_saved_work(
    context: ContextOf, actor: ActorOf, project_id: UUID, asked: RestoreWork
) -> Envelope[None]:
    """Make a branch of saved work."""
    project = ProjectId(str(project_id))
    await context.services.saved_work.restore(actor, project, asked.ref, asked.branch)
    return Envelope.of(None)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= _MOST):
        raise InvalidInputError("Last-Event-ID is not an event's number", code="bad_cursor")
    return int(text)


async def _events(
    context: Context, actor: Actor, project: ProjectId, after: int
) -> AsyncIterator[str]:
    context.metrics.stream_opened("project_events")
    try:
        yield ": hello\n\n"
        with context.services.feed.subscribe(project) as changes:
            async with Pump[Change](changes, context.closing) as pump:
                while True:
                    found = await context.services.outlooks.events(actor, project, after=after)
                    for event in found:
                        after = event.sequence
                        yield _shown(event)
                    # A look without a notice too: not all that is noted is told at once.
                    if not found and await pump.next(HEARTBEAT_SECONDS) is None:
                        yield ": still here\n\n"
    except StopAsyncIteration:
        return  # the server closes
    except LagError:
        return  # it connects again, and goes on where it was
    except AnyonError as error:  # the project was deleted meanwhile, or the database is away
        log.info("events.ended", project=project, code=error.code)
    finally:
        context.metrics.stream_closed("project_events")


def _shown(event: Event) -> str:
    shown = lives.Event(
        sequence=event.sequence,
        kind=event.kind,
        reason=event.reason,
        detail=event.detail,
        at=event.at,
    )
    data = json.dumps(shown.model_dump(mode="json"), ensure_ascii=False)
    return f"id: {event.sequence}\nevent: {event.kind}\ndata: {data}\n\n"
