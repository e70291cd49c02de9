"""Routes of what projects have in the store: its size, checks, collections, proofs, what goes on."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from anyon.api import past_shapes
from anyon.api.checkpoints import checkpoints_of
from anyon.api.contexts import ActorOf, Context, ContextOf, actor_of
from anyon.api.envelopes import ERRORS
from anyon.domain.ids import ProjectId
from anyon.sdk import checkpoints as wire
from anyon.sdk.models import Envelope

router = APIRouter(
    prefix="/api/projects/{project_id}/storage",
    tags=["storage"],
    dependencies=[Depends(actor_of)],
)
everything = APIRouter(prefix="/api/storage", tags=["storage"], dependencies=[Depends(actor_of)])

_LOOK_SECONDS = 0.25


@everything.get("")
async def list_usage(context: ContextOf, actor: ActorOf) -> Envelope[list[wire.Standing]]:
    """Return how each of the caller's projects stands in the store; wakes nothing."""
    use = checkpoints_of(context).upkeep
    found = [await use.standing(project) for project in await use.projects(actor)]
    return Envelope.of([past_shapes.standing(one) for one in found])


@router.get("")
async def get_usage(
    context: ContextOf, actor: ActorOf, project_id: UUID
) -> Envelope[wire.Standing]:
    """Return how a project stands in the store, and when its restore was last proven; wakes nothing."""
    use = checkpoints_of(context).upkeep
    project = await use.find(actor, ProjectId(str(project_id)))
    return Envelope.of(past_shapes.standing(await use.standing(project)))


@router.post("/verify")
async def verify_all(
    context: ContextOf, actor: ActorOf, project_id: UUID, read_data: bool = False
) -> Envelope[wire.Audited]:
    """Check all checkpoints of a project: their structure, or every byte. Damage is named by file."""
    use = checkpoints_of(context).upkeep
    project = await use.find(actor, ProjectId(str(project_id)))
    return Envelope.of(past_shapes.audited(project, await use.verify(project, read_data=read_data)))


@router.post("/collect")
async def collect(context: ContextOf, actor: ActorOf, project_id: UUID) -> Envelope[wire.Collected]:
    """Drop what the retention lets go and nothing needs; 409 while it is read or collected already."""
    use = checkpoints_of(context).upkeep
    project = await use.find(actor, ProjectId(str(project_id)))
    return Envelope.of(past_shapes.collected(project, await use.collect(project)))


@router.post("/drill")
async def drill(context: ContextOf, actor: ActorOf, project_id: UUID) -> Envelope[wire.Drilled]:
    """Restore the last checkpoint to a place aside and compare every byte; the outcome is recorded."""
    use = checkpoints_of(context).upkeep
    project = await use.find(actor, ProjectId(str(project_id)))
    return Envelope.of(past_shapes.drilled(await use.drill(project)))


_EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    **ERRORS,
    200: {"content": {"text/event-stream": {}}, "description": "Server-sent events."},
}


@router.get("/activities", response_class=StreamingResponse, responses=_EVENT_STREAM)
async def stream_activities(
    context: ContextOf,
    actor: ActorOf,
    project_id: UUID,
    wait: Annotated[int, Query(ge=0, le=5)] = 0,
) -> StreamingResponse:
    """Send events ``activities`` with all that goes on with a project in the store, and how far it is.

    It ends when nothing does any more, or nothing has begun within *wait* seconds.
    """
    use = checkpoints_of(context).upkeep
    project = await use.find(actor, ProjectId(str(project_id)))
    return StreamingResponse(
        _told(context, project.id, wait),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _told(context: Context, project_id: ProjectId, wait: int) -> AsyncIterator[str]:
    use = checkpoints_of(context)
    loop = asyncio.get_running_loop()
    until, last = loop.time() + wait, ""
    yield ": hello\n\n"
    while not context.closing.is_set():
        saving = use.archives.progresses.under_way.get(project_id)
        now = [
            past_shapes.activity(one, saving).model_dump(mode="json")
            for one in use.activities.of(project_id)
        ]
        if not now and (last or loop.time() >= until):
            return
        data = json.dumps(now)
        if now and data != last:
            last = data
            yield f"event: activities\ndata: {data}\n\n"
        await asyncio.sleep(_LOOK_SECONDS)
