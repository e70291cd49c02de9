"""Routes of pictures that are attached to tasks ("images" on the wire)."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from anyon.api import shapes
from anyon.api.contexts import ActorOf, ContextOf, actor_of
from anyon.api.uploads import FIELD, received
from anyon.domain.ids import PictureId, TaskId
from anyon.sdk import models
from anyon.sdk.models import Envelope

router = APIRouter(prefix="/api/images", tags=["images"], dependencies=[Depends(actor_of)])

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {FIELD: {"type": "string", "format": "binary"}},
                    "required": [FIELD],
                }
            }
        },
    }
}


@router.post("/upload", openapi_extra=_FORM)
async def upload_image(
    context: ContextOf, actor: ActorOf, request: Request
) -> Envelope[models.Image]:
    """Keep an image of at most 20 MiB, to be attached to a task; the same content gives the same image."""
    async with received(request, context.uploads) as upload:
        picture = await context.services.pictures.upload(actor, upload.name, upload.content)
    return Envelope.of(shapes.image(picture))


@router.post("/task/{task_id}/upload", openapi_extra=_FORM)
async def upload_task_image(
    context: ContextOf, actor: ActorOf, task_id: UUID, request: Request
) -> Envelope[models.Image]:
    """Keep an image and attach it to a task."""
    task = TaskId(str(task_id))
    await context.services.tasks.get(actor, task)  # before its body is read
    async with received(request, context.uploads) as upload:
        picture = await context.services.pictures.upload(
            actor, upload.name, upload.content, task_id=task
        )
    return Envelope.of(shapes.image(picture))


@router.get("/task/{task_id}")
async def list_task_images(
    context: ContextOf, actor: ActorOf, task_id: UUID
) -> Envelope[list[models.Image]]:
    """Return what is attached to a task, in order; wakes nothing."""
    found = await context.services.pictures.of_task(actor, TaskId(str(task_id)))
    return Envelope.of([shapes.image(one) for one in found])


@router.delete("/{image_id}")
async def delete_image(context: ContextOf, actor: ActorOf, image_id: UUID) -> Envelope[None]:
    """Delete an image, and it from all tasks; what runs already keeps its copy."""
    await context.services.pictures.delete(actor, PictureId(str(image_id)))
    return Envelope.of(None)


@router.get(
    "/{image_id}/file",
    response_class=Response,
    responses={200: {"content": {"image/*": {}}, "description": "The image's bytes."}},
)
async def get_image_file(context: ContextOf, actor: ActorOf, image_id: UUID) -> Response:
    """Return an image's bytes; wakes nothing."""
    picture, content = await context.services.pictures.content(actor, PictureId(str(image_id)))
    headers = {
        # The bytes of an id never change. `private`, for they are one tenant's: a cache between
        # must not hand them to whoever asks next.
        "Cache-Control": "private, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    if picture.mime_type == "image/svg+xml":
        # An SVG may carry scripts. Opened by itself it would run them as this server's own page,
        # with its user's rights: in a sandbox it runs none, and loads nothing.
        headers["Content-Security-Policy"] = (
            "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
        )
    return Response(content, media_type=picture.mime_type, headers=headers)
