"""The application: all routes, the guards before them, the errors' form, and the shutdown."""

import time
from collections.abc import Awaitable, Callable, Sequence

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anyon import __version__
from anyon.agents.agent import Agent
from anyon.api import (
    attempts,
    checkpoints,
    envelopes,
    histories,
    images,
    lives,
    previews,
    processes,
    projects,
    storage,
    streams,
    systems,
    tags,
    tasks,
    terminals,
    tokens,
)
from anyon.api.contexts import Context
from anyon.api.guards import GuardMiddleware, Hosts
from anyon.api.preferences import Preferences
from anyon.api.preview_hosts import Names
from anyon.api.preview_proxies import PreviewMiddleware
from anyon.api.requests import RequestMiddleware
from anyon.config import Settings
from anyon.services import Services
from anyon.telemetry import Metrics
from anyon.telemetry.traces import Tracer

_DESCRIPTION = """\
Every JSON answer is `{"success", "data", "error_data", "message"}`; an error's `error_data` holds
a stable `code` and a `hint`. A body is read as JSON whatever its content type.

Streams are WebSockets that carry `{"JsonPatch": [...]}` and at last `{"finished": true}`:
`/api/tasks/stream/ws`, `/api/execution-processes/stream/ws`, `/api/drafts/stream/ws`,
`/api/execution-processes/{id}/normalized-logs/ws`, `/api/execution-processes/{id}/raw-logs/ws`,
`/api/task-attempts/{id}/diff/ws`. `/api/projects/{id}/terminal` is a terminal.
"""


def create_app(
    services: Services,
    settings: Settings,
    *,
    metrics: Metrics | None = None,
    agents: Sequence[Agent] = (),
    before_scrape: Callable[[], Awaitable[None]] | None = None,
    tracer: Tracer | None = None,
) -> FastAPI:
    """Return the server's application. ``begin_shutdown`` ends its streams."""
    app = FastAPI(
        title="Anyon",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses=envelopes.ERRORS,
    )
    context = Context(
        services=services,
        settings=settings,
        metrics=metrics or Metrics(),
        agents=agents,
        before_scrape=before_scrape,
        preferences=Preferences(settings.home / "preferences", settings.default_agent),
    )
    app.state.context = context
    for room in (
        systems,
        projects,
        lives,
        histories,
        previews,
        tasks,
        attempts,
        processes,
        images,
        tags,
        tokens,
        streams,
        terminals,
    ):
        app.include_router(room.router)
    for more in (
        checkpoints.router,
        storage.router,
        storage.everything,
        lives.deleted,
        lives.movable,
    ):
        app.include_router(more)
    envelopes.install(app)
    app.add_middleware(GuardMiddleware, hosts=Hosts.of(settings))
    app.add_middleware(PreviewMiddleware, context=context, names=Names.of(settings))
    app.add_middleware(CountingMiddleware, metrics=context.metrics)
    app.add_middleware(
        RequestMiddleware, tracer=tracer
    )  # the last one added is the first to see it
    return app


def begin_shutdown(app: FastAPI) -> None:
    """End all streams: WebSockets are closed with 1012, others end. Repeats are harmless."""
    context: Context = app.state.context
    context.closing.set()


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Those that get a series of their own; a client may send any word as a method."""


class CountingMiddleware:
    """Measures requests by their route's template."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, and measure."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 500, time.perf_counter()

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            length = time.perf_counter() - began
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            self._metrics.request_served(method, route, status, length)
