"""Routes of the server itself: health, what it is, preferences, metrics."""

import platform
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header
from starlette.responses import Response

from anyon import __version__
from anyon.api.contexts import ActorOf, ContextOf, actor_of
from anyon.domain.errors import NotAllowedError
from anyon.domain.ids import LOCAL_USER
from anyon.sdk import models, statuses
from anyon.sdk.models import Envelope
from anyon.services.statuses import Standing

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


@router.get("/api/status")
async def get_status(context: ContextOf, actor: ActorOf) -> Envelope[statuses.Status]:
    """Return how all of the caller's projects stand, in one look; wakes nothing."""
    found = await context.services.statuses.of(actor)
    return Envelope.of(
        statuses.Status(
            version=__version__,
            at=datetime.now(UTC),
            projects=[_standing(one) for one in found],
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


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {
            "content": {"text/plain": {}, "application/openmetrics-text": {}},
            "description": "Prometheus text, or OpenMetrics with exemplars where that is accepted.",
        }
    },
)
async def get_metrics(
    context: ContextOf,
    actor: ActorOf,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Return what Prometheus reads; with a token of the operator's where the server asks for tokens.

    It tells of everybody's projects, so nobody else may read it.
    """
    if actor.user_id != LOCAL_USER:
        raise NotAllowedError("only the server's operator may read this", code="operators_only")
    if context.before_scrape is not None:
        await context.before_scrape()
    text, kind = context.metrics.render(accept)
    return Response(text, media_type=kind)


def _standing(it: Standing) -> statuses.ProjectStatus:
    return statuses.ProjectStatus(
        id=UUID(it.project.id),
        name=it.project.name,
        goal=it.project.goal,
        phase=it.project.phase,
        phase_since=it.project.phase_since,
        reason=it.project.state_reason,
        last_active_at=it.project.last_active_at,
        tasks={status.value: count for status, count in it.tasks.items()},
        processes=it.processes,
        leases=dict(it.leases),
        saved_at=it.saved_at,
        unsaved_seconds=None if it.unsaved_for is None else it.unsaved_for.total_seconds(),
        next_step=it.next_step,
        next_step_at=it.next_step_at,
        position=it.position,
    )
