"""Routes of a project's previews: a link to one, and the ports that there are."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path
from starlette.requests import Request

from anyon.api.contexts import ActorOf, ContextOf, actor_of
from anyon.api.preview_hosts import ENTER, Names
from anyon.domain.errors import MissingError
from anyon.domain.ids import ProjectId
from anyon.sdk.models import Envelope
from anyon.sdk.previews import ListeningPorts, PreviewLink

router = APIRouter(prefix="/api/projects", tags=["previews"], dependencies=[Depends(actor_of)])

Port = Annotated[int, Path(ge=1, le=65535)]


@router.get("/{project_id}/ports")
async def ports(context: ContextOf, actor: ActorOf, project_id: UUID) -> Envelope[ListeningPorts]:
    """Return the ports that programs of the project listen on, null while it sleeps; wakes nothing."""
    found = await context.services.previews.listening(actor, ProjectId(str(project_id)))
    return Envelope.of(ListeningPorts(ports=None if found is None else list(found)))


@router.post("/{project_id}/previews/{port}")
async def link(
    context: ContextOf, actor: ActorOf, project_id: UUID, port: Port, request: Request
) -> Envelope[PreviewLink]:
    """Return a link that opens a preview of the port once; opening it wakes the project."""
    project = ProjectId(str(project_id))
    ticket, expires_at = await context.services.previews.ticket(actor, project, port)
    names = Names.of(context.settings)
    if not names.suffix:
        raise MissingError(
            "previews need a name of their own, which is not set here",
            code="previews_off",
            hint="Set preview_url to an address below which every name leads to this server.",
        )
    origin = names.origin(project, port, request.headers.get("host", ""))
    url = f"{origin}{ENTER}?ticket={ticket}"
    return Envelope.of(PreviewLink(url=url, origin=origin, port=port, expires_at=expires_at))
