"""Routes of tags."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from anyon.api import shapes
from anyon.api.contexts import ActorOf, ContextOf, actor_of
from anyon.domain.ids import TagId
from anyon.sdk import models, requests
from anyon.sdk.models import Envelope

router = APIRouter(prefix="/api/tags", tags=["tags"], dependencies=[Depends(actor_of)])


@router.get("")
async def list_tags(
    context: ContextOf, actor: ActorOf, search: Annotated[str, Query(max_length=1000)] = ""
) -> Envelope[list[models.Tag]]:
    """Return the caller's tags by name: those whose name holds ``search``, in whatever case."""
    found = await context.services.tags.list(actor, search)
    return Envelope.of([shapes.tag(one) for one in found])


@router.post("")
async def create_tag(
    context: ContextOf, actor: ActorOf, asked: requests.CreateTag
) -> Envelope[models.Tag]:
    """Keep a text under a name."""
    tag = await context.services.tags.create(actor, asked.tag_name, asked.content)
    return Envelope.of(shapes.tag(tag))


@router.put("/{tag_id}")
async def update_tag(
    context: ContextOf, actor: ActorOf, tag_id: UUID, asked: requests.UpdateTag
) -> Envelope[models.Tag]:
    """Change a tag: null keeps."""
    tag = await context.services.tags.update(
        actor, TagId(str(tag_id)), name=asked.tag_name, content=asked.content
    )
    return Envelope.of(shapes.tag(tag))


@router.delete("/{tag_id}")
async def delete_tag(context: ContextOf, actor: ActorOf, tag_id: UUID) -> Envelope[None]:
    """Delete a tag."""
    await context.services.tags.delete(actor, TagId(str(tag_id)))
    return Envelope.of(None)
