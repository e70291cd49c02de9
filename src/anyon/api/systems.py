"""Routes of the server itself: health, what it is, preferences, metrics."""

import platform
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header
from starlette.responses import Response

from anyon import __version__
from anyon.api.contexts import ActorOf, ContextOf, actor_of
from anyon.domain.ids import TaskId
from anyon.sdk import models
from anyon.sdk.models import Envelope

router = APIRouter(tags=["system"])


@router.get("/api/health")
async def get_health() -> Envelope[str]:
    """Say that the server answers; needs no token."""
    return Envelope.of("OK")


@router.get("/api/info")
async def get_info(context: ContextOf, actor: ActorOf) -> Envelope[models.SystemInfo]:
    """Return what a client needs to know of the server."""
    return Envelope.of(
        models.SystemInfo(
            config=context.preferences.get(actor.user_id),
            analytics_user_id=actor.user_id,
            executors={
                agent.name: {
                    variant: {agent.name: dict(settings)}
                    for variant, settings in agent.variants.items()
                }
                for agent in context.agents
            },
            environment={
                "os_type": platform.system(),
                "os_version": platform.release(),
                "os_architecture": platform.machine(),
                "bitness": platform.architecture()[0],
            },
            github_secret_state={"has_oauth_token": False, "has_pat": False},
            claude_secret_state={"has_credentials": False},
            is_cloud=False,
            capabilities={agent.name: list(agent.capabilities) for agent in context.agents},
            version=__version__,
        )
    )


@router.get("/api/config")
async def get_config(context: ContextOf, actor: ActorOf) -> Envelope[dict[str, Any]]:
    """Return the front end's preferences."""
    return Envelope.of(context.preferences.get(actor.user_id))


@router.put("/api/config")
async def put_config(
    context: ContextOf, actor: ActorOf, asked: dict[str, Any]
) -> Envelope[dict[str, Any]]:
    """Keep the front end's preferences; secrets are not kept and always shown as null."""
    return Envelope.of(context.preferences.put(actor.user_id, asked))


@router.get("/api/auth/github/check", dependencies=[Depends(actor_of)])
async def check_github() -> Envelope[str]:
    """Say whether a GitHub login is there: not yet."""
    return Envelope.of("INVALID")


@router.get("/api/tags", dependencies=[Depends(actor_of)])
async def list_tags() -> Envelope[list[dict[str, Any]]]:
    """Return the tags: none yet."""
    return Envelope.of([])


@router.get("/api/images/task/{task_id}")
async def list_images(
    context: ContextOf, actor: ActorOf, task_id: UUID
) -> Envelope[list[dict[str, Any]]]:
    """Return a task's images: none yet."""
    await context.services.tasks.get(actor, TaskId(str(task_id)))
    return Envelope.of([])


@router.get(
    "/metrics",
    dependencies=[Depends(actor_of)],
    response_class=Response,
    responses={
        200: {
            "content": {"text/plain": {}, "application/openmetrics-text": {}},
            "description": "Prometheus text, or OpenMetrics with exemplars where that is accepted.",
        }
    },
)
async def get_metrics(
    context: ContextOf, accept: Annotated[str, Header(include_in_schema=False)] = ""
) -> Response:
    """Return what Prometheus reads; with a token where the server asks for tokens."""
    if context.before_scrape is not None:
        await context.before_scrape()
    text, kind = context.metrics.render(accept)
    return Response(text, media_type=kind)
