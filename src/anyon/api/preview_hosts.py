"""Previews' names, and what a request and an answer are on either side of the proxy: pure.

A preview has an origin of its own, ``<port>--<project>.<suffix>``: what runs in a project is not to
be trusted, and on the API's own origin its scripts could call the API as whoever looks at it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from anyon.config import Settings
from anyon.domain.ids import ProjectId

Headers = Sequence[tuple[bytes, bytes]]
ENTER = "/.anyon/enter"
"""The one path of a preview's origin that is not the project's."""
LOCAL_SUFFIX = "preview.localhost"
"""Browsers take every name below localhost for this machine."""
_LABEL = re.compile(r"([1-9][0-9]{3,4})--([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_HOST = re.compile(r"([a-z0-9.-]+?)\.?(:[0-9]{1,5})?")
_TOKEN = re.compile(rb"(?i)\s*bearer\s+anyon_")
_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate"),
        *(b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    }
)
"""Headers that are between two neighbours only."""
_OURS = frozenset({b"host", b"expect", b"forwarded", b"x-real-ip", b"content-length"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Place:
    """Which port of which project a Host header names, and the header itself."""

    project: ProjectId
    port: int
    host: str


@dataclass(frozen=True, slots=True)
class Names:
    """How previews are named: below *suffix*, reached by *scheme*; an empty suffix shows none.

    *port* is what the address ends in (``:8443`` or nothing), None for the port that the request
    for a link came to.
    """

    suffix: str
    scheme: str = "http"
    port: str | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Names":
        """Return the names that *settings* ask for."""
        if settings.preview_url:
            parts = urlsplit(settings.preview_url)
            port = f":{parts.port}" if parts.port else ""
            return cls((parts.hostname or "").lower(), parts.scheme, port)
        return cls(LOCAL_SUFFIX) if settings.is_loopback else cls("")

    @property
    def cookie(self) -> str:
        """The session cookie's name; over TLS one that no other host can set."""
        return "__Host-anyon-preview" if self.scheme == "https" else "anyon-preview"

    def belongs(self, host: str) -> bool:
        """Say whether a Host header is a preview's, a malformed one included."""
        match = _HOST.fullmatch(host.strip().lower())
        name = match[1] if match else ""
        return bool(self.suffix) and (name == self.suffix or name.endswith(f".{self.suffix}"))

    def place(self, host: str) -> Place | None:
        """Return what a preview's Host header names, None if it names nothing."""
        match = _HOST.fullmatch(host.strip().lower())
        label = match[1].removesuffix(f".{self.suffix}") if match else ""
        found = _LABEL.fullmatch(label)
        if found is None or not 1024 <= int(found[1]) <= 65535:
            return None
        return Place(ProjectId(found[2]), int(found[1]), host.strip().lower())

    def origin(self, project: str, port: int, asked_at: str) -> str:
        """Return a preview's origin for a link that was asked for at the Host *asked_at*."""
        end = self.port
        if end is None:
            match = re.search(r":[0-9]{1,5}$", asked_at)
            end = match[0] if match else ""
        return f"{self.scheme}://{port}--{project}.{self.suffix}{end}"

    def sessions(self, headers: Headers) -> list[str]:
        """Return the sessions that a request brings; a neighbour may have tossed some of its own."""
        found = []
        for name, value in headers:
            if name == b"cookie":
                for item in value.decode("latin-1").split(";"):
                    key, _, text = item.strip().partition("=")
                    if key == self.cookie:
                        found.append(text)
        return found[:8]

    def set_cookie(self, session: str, seconds: int) -> str:
        """Return the header that gives a browser its session, for this one host."""
        secure = "; Secure" if self.scheme == "https" else ""
        return f"{self.cookie}={session}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"


def is_foreign(
    place: Place, *, kind: str, method: str, origins: Sequence[str], sites: Sequence[str], mode: str
) -> bool:
    """Say whether another site, another preview among them, makes a browser send this.

    Following a link is all that it may do: that shows the page to its user and to nobody else.
    """
    if kind == "http" and method in _SAFE_METHODS and mode == "navigate":
        return False
    if any(origin.strip().lower().partition("://")[2] != place.host for origin in origins):
        return True
    return any(site.lower() not in {"same-origin", "none"} for site in sites)


def is_background(*, kind: str, destination: str) -> bool:
    """Say whether an open page sends this by itself: a script's fetch, or a WebSocket."""
    return kind == "websocket" or destination == "empty"


def inward(headers: Headers, place: Place, names: Names, client: str) -> list[tuple[bytes, bytes]]:
    """Return what the server inside gets: nothing of ours, and itself as the host.

    Development servers answer to ``localhost`` and refuse names that they do not know, so they are
    addressed so; the name that the browser uses is in ``X-Forwarded-Host``.
    """
    local = b"localhost:%d" % place.port
    left_out = _HOP | _OURS | _named(headers)
    found = [(b"host", local)]
    for name, value in headers:
        if name in left_out or name.startswith(b"x-forwarded-"):
            continue
        if name == b"authorization" and _TOKEN.match(value):
            continue  # a key to the API is not for what runs in a project
        if name == b"cookie":
            value = _without(value, names.cookie)  # noqa: PLW2901 - the header as it goes on
            if not value:
                continue
        if name in {b"origin", b"referer"}:
            value = _as_local(value, place, local)  # noqa: PLW2901 - as above
        found.append((name, value))
    found.append((b"x-forwarded-host", place.host.encode()))
    found.append((b"x-forwarded-proto", names.scheme.encode()))
    if client:
        found.append((b"x-forwarded-for", client.encode()))
    return found


def outward(headers: Headers, place: Place, names: Names) -> list[tuple[bytes, bytes]]:
    """Return what the browser gets: no word between neighbours, and no cookie beyond this host."""
    left_out = _HOP | _named(headers)
    found = []
    for name, value in headers:
        lowered = name.lower()
        if lowered in left_out:
            continue
        if lowered == b"set-cookie":
            kept = _own_cookie(value, names.cookie)
            if kept is not None:
                found.append((lowered, kept))
        elif lowered == b"location":
            found.append((lowered, _as_preview(value, place, names)))
        else:
            found.append((lowered, value))
    return found


def _named(headers: Headers) -> frozenset[bytes]:
    """Return the headers that ``Connection`` says are between neighbours only."""
    return frozenset(
        item.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for item in value.split(b",")
    )


def _without(cookies: bytes, name: str) -> bytes:
    kept = [
        item.strip()
        for item in cookies.split(b";")
        if item.strip().partition(b"=")[0].strip() != name.encode()
    ]
    return b"; ".join(item for item in kept if item)


def _own_cookie(value: bytes, ours: str) -> bytes | None:
    """Return a cookie for this host alone, or None for one that would be our session."""
    first, *attributes = value.split(b";")
    if first.partition(b"=")[0].strip().lower() == ours.lower().encode():
        return None
    kept = [it for it in attributes if it.partition(b"=")[0].strip().lower() != b"domain"]
    return b";".join([first, *kept])


def _as_local(value: bytes, place: Place, local: bytes) -> bytes:
    for scheme in (b"http", b"https"):
        own = scheme + b"://" + place.host.encode()
        if value.lower() == own or value.lower().startswith(own + b"/"):
            return b"http://" + local + value[len(own) :]
    return value


def _as_preview(value: bytes, place: Place, names: Names) -> bytes:
    for name in (b"localhost", b"127.0.0.1", b"0.0.0.0"):
        local = b"http://%s:%d" % (name, place.port)
        if value == local or value.startswith((local + b"/", local + b"?")):
            return f"{names.scheme}://{place.host}".encode() + value[len(local) :]
    return value


def many(headers: Headers, name: bytes) -> list[str]:
    """Return all values of a header."""
    return [value.decode("latin-1") for key, value in headers if key == name]


def one(headers: Headers, name: bytes) -> str:
    """Return a header's first value, empty if it is not there."""
    return next(iter(many(headers, name)), "")
