"""What stands before the application: requests to a preview's name go to the project and nowhere else."""

import html
import json
from functools import partial
from urllib.parse import parse_qs

import h11
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anyon.api import preview_exchanges, preview_hosts, preview_sockets
from anyon.api.contexts import Context
from anyon.api.guards import Refusal, refuse
from anyon.api.preview_hosts import ENTER, Headers, Names, Place, many, one
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError
from anyon.services.previews import SESSION_LIFE

log = structlog.get_logger(__name__)

_UNKNOWN = Refusal(
    404,
    "preview_unknown",
    "There is no such preview, or the link to it has ended.",
    "Ask for a new link: `anyon preview PROJECT PORT`.",
)
"""The one answer to whoever may not see a preview: whether it is there, sleeps or is another's."""
_CROSS_SITE = Refusal(403, "cross_site", "Another web site may not use this preview.", "")
_BAD_REQUEST = Refusal(400, "bad_request", "The request is not well-formed HTTP.", "")
_BAD_FRAME = Refusal(400, "bad_framing", "The length of the body is told twice.", "")


class PreviewMiddleware:
    """Serves previews' names by the projects' servers; hands everything else on untouched."""

    def __init__(self, app: ASGIApp, context: Context, names: Names) -> None:
        self._app = app
        self._context = context
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Show the preview that the Host header names."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        hosts = many(scope["headers"], b"host")
        if not any(self._names.belongs(host) for host in hosts):
            await self._app(scope, receive, send)
            return
        place = self._names.place(hosts[0]) if len(hosts) == 1 else None
        if place is None:
            await _tell(scope, send, _UNKNOWN)
            return
        scope["route"] = _Route  # what the requests are counted under
        if scope["type"] == "http" and scope["path"] == ENTER:
            await self._enter(scope, send, place)
        else:
            await self._show(scope, receive, send, place)

    async def _enter(self, scope: Scope, send: Send, place: Place) -> None:
        """Exchange the link's ticket for a session, and go to the first page."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("ticket", [""])[0]
        session = None
        if scope["method"] == "GET":
            session = self._context.services.previews.enter(given, place.project, place.port)
        if session is None:
            await _tell(scope, send, _UNKNOWN)
            return
        cookie = self._names.set_cookie(session, int(SESSION_LIFE.total_seconds()))
        headers = [
            (b"location", b"/"),
            (b"set-cookie", cookie.encode()),
            (b"cache-control", b"no-store"),
            (b"referrer-policy", b"no-referrer"),
            (b"content-length", b"0"),
        ]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _show(self, scope: Scope, receive: Receive, send: Send, place: Place) -> None:
        headers: Headers = scope["headers"]
        kind, method = scope["type"], scope.get("method", "GET")
        previews = self._context.services.previews
        try:
            project = await previews.admitted(
                self._names.sessions(headers), place.project, place.port
            )
        except AnyonError as error:
            await _tell(scope, send, _of(error))
            return
        if project is None:
            await _tell(scope, send, _UNKNOWN)
            return
        if preview_hosts.is_foreign(
            place,
            kind=kind,
            method=method,
            origins=many(headers, b"origin"),
            sites=many(headers, b"sec-fetch-site"),
            mode=one(headers, b"sec-fetch-mode"),
        ):
            await _tell(scope, send, _CROSS_SITE)
            return
        if many(headers, b"content-length") and many(headers, b"transfer-encoding"):
            await _tell(scope, send, _BAD_FRAME)
            return
        await self._visit(scope, receive, send, place, project)

    async def _visit(
        self, scope: Scope, receive: Receive, send: Send, place: Place, project: Project
    ) -> None:
        headers: Headers = scope["headers"]
        is_by_itself = preview_hosts.is_background(
            kind=scope["type"], destination=one(headers, b"sec-fetch-dest")
        )
        begun = _Begun(send)
        client = (scope.get("client") or ("",))[0]
        inward = preview_hosts.inward(headers, place, self._names, client)
        visiting = self._context.services.previews.visit(
            project, place.port, may_start=not is_by_itself
        )
        try:
            async with visiting as visit:
                if scope["type"] == "websocket":
                    await preview_sockets.carry(
                        visit,
                        scope,
                        receive,
                        begun,
                        _target(scope).decode("latin-1"),
                        inward,
                        self._context.closing,
                    )
                    return
                await preview_exchanges.exchange(
                    visit,
                    _head(scope, inward),
                    receive,
                    begun,
                    partial(preview_hosts.outward, place=place, names=self._names),
                    self._context.closing,
                )
        except h11.LocalProtocolError:  # a header that may not be sent on
            await _tell(scope, send, _BAD_REQUEST)
        except AnyonError as error:
            if begun.has_begun:  # nothing can be told any more: the connection ends in the middle
                log.info("preview.broke_off", project=project.id, code=error.code)
                return
            await _tell(scope, send, _of(error))


class _Route:
    """What stands for all previews in the metrics."""

    path = "(preview)"


class _Begun:
    """A ``send`` that knows whether anything was sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        self.has_begun = True
        await self._send(message)


def _target(scope: Scope) -> bytes:
    """Return the request's target as it came: neither ``//`` nor ``..`` is touched, it is only inside."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    path = path.partition(b"?")[0]
    if not path.startswith(b"/"):
        path = b"/" + path
    query: bytes = scope["query_string"]
    return path + (b"?" + query if query else b"")


def _head(scope: Scope, inward: Headers) -> h11.Request:
    lengths = many(scope["headers"], b"content-length")
    framing: list[tuple[bytes, bytes]] = [(b"connection", b"close")]
    if many(scope["headers"], b"transfer-encoding"):
        framing.append((b"transfer-encoding", b"chunked"))
    elif lengths:
        framing.append((b"content-length", lengths[0].encode()))
    return h11.Request(method=scope["method"], target=_target(scope), headers=[*inward, *framing])


def _of(error: AnyonError) -> Refusal:
    return Refusal(error.status, error.code, error.message, error.hint)


async def _tell(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Answer for the preview: a page where a page was asked for, else the envelope."""
    wants_page = "text/html" in one(scope["headers"], b"accept")
    if scope["type"] == "websocket" or not wants_page:
        await refuse(scope, send, refusal)
        return
    body = _PAGE.format(
        message=html.escape(refusal.message),
        hint=html.escape(refusal.hint),
        code=html.escape(json.dumps(refusal.code)),
    ).encode()
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    ]
    if refusal.status == 503:
        headers.append((b"retry-after", b"2"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    if scope["method"] == "HEAD":
        body = b""
    await send({"type": "http.response.body", "body": body})


_PAGE = """<!doctype html><meta charset="utf-8"><title>Anyon preview</title>
<h1>{message}</h1><p>{hint}</p><p>Code: {code}</p>
"""
