"""What a request must pass before any route sees it: Host, Origin, size, and the form of its body.

A server on loopback asks for no login, so a web page that the developer happens to visit must
not be able to use it: neither across sites (Origin, Sec-Fetch-Site) nor through a name that was
rebound to 127.0.0.1 (Host). The decision is a pure function of the headers.
"""

import asyncio
import ipaddress
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anyon.config import Settings

MAX_BODY_BYTES = 2 * 1024 * 1024
BODY_DEADLINE_SECONDS = 60.0
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_UPLOAD = re.compile(r"/api/images/(?:task/[^/]+/)?upload")
_OWN_SITES = frozenset({"same-origin", "none"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request goes no further."""

    status: int
    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Hosts:
    """The names under which the server may be addressed.

    ``any_address`` admits every IP address: a name can be rebound, an address cannot.
    """

    names: Collection[str]
    any_address: bool = False

    @classmethod
    def of(cls, settings: Settings) -> "Hosts":
        """Return the names that *settings* allow."""
        names = {"localhost", "127.0.0.1", "::1", settings.host.lower()}
        names |= {name.lower() for name in settings.allowed_hosts}
        return cls(frozenset(names), any_address=settings.host in {"0.0.0.0", "::"})  # noqa: S104 - compared, not bound

    def admit(self, host: str) -> bool:
        """Say whether a Host header's value names this server."""
        name = _name_of(host)
        if name is None:
            return False
        return name in self.names or (self.any_address and _is_address(name))


_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]{1,5})?")


def _name_of(host: str) -> str | None:
    """Return the name in ``name``, ``name:port`` or ``[address]:port``; None if it is neither."""
    match = _HOST.fullmatch(host.strip().lower())
    return (match[1] or match[2]).removesuffix(".") if match else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def judge(
    hosts: Hosts, *, kind: str, method: str, path: str, headers: Mapping[str, list[str]]
) -> Refusal | None:
    """Return why a request must be refused, or None. *kind* is ``http`` or ``websocket``."""
    named = headers.get("host", [])
    if len(named) != 1 or not hosts.admit(named[0]):
        return Refusal(
            421,
            "host_not_allowed",
            "This server does not go by the name the request was sent to.",
            "Use its address, or add the name to the setting allowed_hosts.",
        )
    is_page = kind == "http" and method in _SAFE_METHODS and not _is_protected(path)
    if is_page and headers.get("sec-fetch-mode") == ["navigate"]:
        return None  # following a link from another site to our pages harms nobody
    origins = headers.get("origin", [])
    if origins and not _is_own(origins, named[0]):
        return _cross_site()
    sites = headers.get("sec-fetch-site", [])
    if any(site.lower() not in _OWN_SITES for site in sites):
        return _cross_site()
    return None


def _is_protected(path: str) -> bool:
    return path in {"/metrics", "/api"} or path.startswith("/api/")


def _is_own(origins: list[str], host: str) -> bool:
    if len(origins) != 1:
        return False
    scheme, separator, rest = origins[0].strip().lower().partition("://")
    default = {"http": ":80", "https": ":443"}.get(scheme)
    if not separator or default is None:
        return False
    own = host.strip().lower()
    return rest == own or rest + default == own or rest == own + default


def _cross_site() -> Refusal:
    return Refusal(
        403,
        "cross_site",
        "Another web site may not use this server from a browser.",
        "Open the server's own page, or call it from a program without an Origin header.",
    )


class GuardMiddleware:
    """Applies ``judge``, bounds the body, and lets a JSON body come under any content type."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = _decoded(scope)
        refusal = judge(
            self._hosts,
            kind=scope["type"],
            method=scope.get("method", "GET"),
            path=scope["path"],
            headers=headers,
        )
        if refusal is not None:
            await refuse(scope, send, refusal)
        elif scope["type"] == "websocket":
            await self._app(scope, receive, send)
        else:
            await self._with_body(scope, receive, send, headers)

    async def _with_body(
        self, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, list[str]]
    ) -> None:
        """Read the whole body first, so that one too large is refused before anything is done.

        A file's is left to its route, which bounds it while it comes.
        """
        if _is_upload(scope, headers):
            await self._app(scope, receive, send)
            return
        body = await _read(receive, headers)
        if isinstance(body, Refusal):
            await refuse(scope, send, body)
            return
        if body is None:
            return  # the client went away
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        handed = _as_json(scope, headers) if body else scope
        try:
            await self._app(handed, replay, send)
        finally:
            if "route" in handed:  # what it was counted and traced under stands before this
                scope["route"] = handed["route"]


def _decoded(scope: Scope) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return headers


def _is_upload(scope: Scope, headers: Mapping[str, list[str]]) -> bool:
    kind = headers.get("content-type", [""])[0].lower()
    is_form = kind.startswith("multipart/form-data")
    return is_form and scope["method"] == "POST" and _UPLOAD.fullmatch(scope["path"]) is not None


async def _read(receive: Receive, headers: Mapping[str, list[str]]) -> bytes | Refusal | None:
    too_large = Refusal(
        413,
        "body_too_large",
        f"The body is larger than {MAX_BODY_BYTES} bytes.",
        "Send less at once.",
    )
    declared = headers.get("content-length", ["0"])[0]
    if declared.isascii() and declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        return too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_DEADLINE_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    return too_large
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        return Refusal(408, "body_too_slow", "The body did not come in time.", "Send it again.")


def _as_json(scope: Scope, headers: Mapping[str, list[str]]) -> Scope:
    """Call a body JSON whatever its label: the plan's own curl calls send it as a form."""
    kind = headers.get("content-type", [""])[0].lower()
    if not scope["path"].startswith("/api/") or kind.startswith("multipart/"):
        return scope
    kept = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-type"]
    return {**scope, "headers": [*kept, (b"content-type", b"application/json")]}


async def refuse(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Answer with the envelope, also to a WebSocket's opening where the server can."""
    body = json.dumps(
        {
            "success": False,
            "data": None,
            "error_data": {"code": refusal.code, "hint": refusal.hint},
            "message": refusal.message,
        }
    ).encode()
    prefix = "http"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.code})
            return
        prefix = "websocket.http"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if prefix == "http" and refusal.status in {408, 413}:
        headers.append((b"connection", b"close"))
    start = {"type": f"{prefix}.response.start", "status": refusal.status, "headers": headers}
    await send(start)
    await send({"type": f"{prefix}.response.body", "body": body})
