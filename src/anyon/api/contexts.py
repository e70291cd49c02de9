"""What a route works with: the services, the settings, and who is asking."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from starlette.requests import HTTPConnection

from anyon.agents.agent import Agent
from anyon.api.boards import Boards
from anyon.api.drafts import Drafts
from anyon.api.preferences import Preferences
from anyon.config import Settings
from anyon.domain.actors import LOCAL_ACTOR, Actor
from anyon.domain.errors import NotAllowedError, UnauthenticatedError
from anyon.domain.ids import PictureId
from anyon.services import Services
from anyon.telemetry import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One server's parts, as its routes need them.

    ``closing`` is set at the beginning of a shutdown: streams end then. ``before_scrape`` brings
    the gauges up to date. ``uploads`` bounds how many uploaded files are in memory at once.
    """

    services: Services
    settings: Settings
    metrics: Metrics
    agents: Sequence[Agent]
    before_scrape: Callable[[], Awaitable[None]] | None = None
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    boards: Boards = field(default_factory=Boards)
    drafts: Drafts = field(default_factory=Drafts)
    preferences: Preferences
    uploads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))


async def context_of(connection: HTTPConnection) -> Context:
    """Return the server's parts. A coroutine, for FastAPI sends plain functions through a thread at each request."""
    context: Context = connection.app.state.context
    return context


ContextOf = Annotated[Context, Depends(context_of)]


async def actor_of(connection: HTTPConnection, context: ContextOf) -> Actor:
    """Return who asks: the token's user, or the one local user where no login is asked.

    A token that is given must be good, also where none is needed. Reading asks for the scope
    ``read``, everything else for ``write``.
    """
    given = connection.headers.get("authorization", "")
    kind, _, secret = given.partition(" ")
    if given and (kind.lower() != "bearer" or not secret.strip()):
        raise UnauthenticatedError(
            "the Authorization header is not of the form `Bearer <token>`", code="bad_token"
        )
    if given:
        actor = await context.services.tokens.authenticate(secret.strip())
    elif context.settings.tokens_required:
        raise UnauthenticatedError(
            "this server asks for a token",
            code="token_required",
            hint="Make one on the server with `anyon token create`, then set ANYON_TOKEN.",
        )
    else:
        actor = LOCAL_ACTOR
    scope = "read" if connection.scope.get("method", "GET") in {"GET", "HEAD"} else "write"
    if not actor.may(scope):
        raise NotAllowedError(f"this token may not {scope}", code="scope_missing")
    return actor


ActorOf = Annotated[Actor, Depends(actor_of)]


def canonical(value: UUID) -> str:
    """Return an id in the one form that ids have inside."""
    return str(value)


def picture_ids(values: Sequence[UUID] | None) -> list[PictureId]:
    """Return the ids of pictures in that form, none where none are given."""
    return [PictureId(str(value)) for value in values or ()]
