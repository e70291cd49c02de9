"""The outermost layer: each request has an id and, where traces are made, a trace; and a line in the log."""

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anyon.telemetry.requests import HEADER, request_id_of, requested
from anyon.telemetry.traces import PARENT, Tracer, traced

log = structlog.get_logger(__name__)

_QUIET = frozenset({"/metrics", "/api/health"})
"""Asked for all the time by machines: a trace of each would hide the others."""
_LOOKS = frozenset({"GET", "HEAD", "OPTIONS"})


class RequestMiddleware:
    """Takes the id from ``X-Request-ID`` where that is well-formed, else makes one; and gives it back.

    It stands in every log line, is recorded with what the request starts, and is handed to it.
    """

    def __init__(self, app: ASGIApp, tracer: Tracer | None = None) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, inside the request's context."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(_only(scope["headers"], HEADER))
        began, status = time.perf_counter(), 500

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] in {
                "http.response.start",
                "websocket.accept",
                "websocket.http.response.start",
            }:
                status = message.get("status", 101)
                message.setdefault("headers", [])
                MutableHeaders(raw=message["headers"]).setdefault(HEADER, request_id)
            await send(message)

        with ExitStack() as held:
            held.enter_context(requested(request_id))
            if self._tracer is not None and scope["type"] == "http" and _is_traced(scope):
                held.enter_context(_trace(self._tracer, scope, request_id))
            try:
                await self._app(scope, receive, tell)
            finally:
                if scope["type"] == "http":
                    self._conclude(scope, status, time.perf_counter() - began)

    def _conclude(self, scope: Scope, status: int, seconds: float) -> None:
        """Tell how a request ended: of one that may have changed something or failed in any case.

        A path is told only where it is one of ours: a preview's may hold anything.
        """
        method, route = scope["method"], getattr(scope.get("route"), "path", None)
        is_ours = route is not None and route.startswith("/")
        facts = {"path": scope["path"]} if is_ours else {}
        if self._tracer is not None and _is_traced(scope):
            self._tracer.describe(
                f"{method} {route}" if route else f"request {method}",
                {f"url.{key}": value for key, value in facts.items()}
                | {"http.response.status_code": status},
            )
        is_look = method in _LOOKS and status < 500
        tell = log.debug if is_look else log.info
        length = round(seconds * 1000, 1)
        tell(
            "request.served",
            method=method,
            route=route,
            status=status,
            milliseconds=length,
            **facts,
        )


def _is_traced(scope: Scope) -> bool:
    return scope["path"] not in _QUIET


def _trace(tracer: Tracer, scope: Scope, request_id: str) -> AbstractContextManager[object]:
    method = scope["method"]
    return traced(
        tracer,
        f"request {method}",
        {"http.request.method": method, "request_id": request_id},
        parent=_only(scope["headers"], PARENT),
    )


def _only(headers: Iterable[tuple[bytes, bytes]], name: str) -> str | None:
    """Return a header's value if it was sent once."""
    wanted = name.lower().encode()
    found = [value.decode("latin-1") for key, value in headers if key.lower() == wanted]
    return found[0] if len(found) == 1 else None
