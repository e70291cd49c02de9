"""Who may reach the routes at all: Host, Origin and Sec-Fetch-Site, decided purely."""

from dataclasses import replace

import pytest

from anyon.api import guards
from anyon.api.guards import Hosts, judge
from anyon.config import load

SETTINGS = load({"HOME": "/nonexistent"})
HOSTS = Hosts.of(SETTINGS)


def verdict(
    headers: dict[str, str], *, kind: str = "http", method: str = "POST", path: str = "/api/tasks"
) -> str | None:
    """Return the code of the refusal, or None."""
    named = {name: [value] for name, value in ({"host": "127.0.0.1:8080"} | headers).items()}
    refusal = judge(HOSTS, kind=kind, method=method, path=path, headers=named)
    return refusal.code if refusal else None


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "localhost.", "127.0.0.1"],
)
def test_the_servers_own_names_are_admitted(host: str) -> None:
    """A request to the address itself, in any spelling, passes."""
    assert verdict({"host": host}) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "",
        "localhost:80:80",
        "localhost@evil.example",
        "[::1",
        "localhost:x",
        "127.0.0.1:8080, evil.example",
        "2130706433",
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_rebound_name_is_refused(host: str, kind: str) -> None:
    """A name that merely resolves to this machine is refused, for reading and for WebSockets too."""
    assert verdict({"host": host}, kind=kind, method="GET") == "host_not_allowed"


def test_two_host_headers_or_none_are_refused() -> None:
    """What cannot be said for sure is no name of ours."""
    for named in ([], ["localhost", "evil.example"], ["localhost", "localhost"]):
        headers = {"host": named} if named else {}
        refusal = judge(HOSTS, kind="http", method="GET", path="/api/health", headers=headers)
        assert refusal is not None
        assert refusal.status == 421


def test_an_open_bind_admits_addresses_but_not_names() -> None:
    """On 0.0.0.0 any IP address names the server; a name must be in allowed_hosts."""
    hosts = Hosts.of(replace(SETTINGS, host="0.0.0.0", allowed_hosts=("Anyon.Example",)))
    assert hosts.admit("192.0.2.7:8080")
    assert hosts.admit("[2001:db8::1]:8080")
    assert hosts.admit("anyon.example")
    assert not hosts.admit("evil.example")


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://localhost:3000",
        "http://127.0.0.1",
        "file://",
        "http://127.0.0.1:8080.evil.example",
        "",
        "http://127.0.0.1:8080/",
    ],
)
@pytest.mark.parametrize(
    ("kind", "method"), [("http", "POST"), ("http", "GET"), ("websocket", "GET")]
)
def test_another_origin_is_refused(origin: str, kind: str, method: str) -> None:
    """Neither a form, nor a fetch, nor a WebSocket of another origin passes."""
    assert verdict({"origin": origin}, kind=kind, method=method) == "cross_site"


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_the_own_origin_passes(kind: str) -> None:
    """The negative control: the server's own page, and a program without an Origin, pass."""
    own = {"origin": "http://127.0.0.1:8080", "sec-fetch-site": "same-origin"}
    assert verdict(own, kind=kind) is None
    assert verdict({}, kind=kind) is None
    assert verdict({"sec-fetch-site": "none"}, kind=kind) is None
    assert verdict({"host": "localhost", "origin": "http://localhost:80"}, kind=kind) is None


@pytest.mark.parametrize("site", ["cross-site", "same-site", "garbage"])
def test_a_browser_that_says_cross_site_is_refused(site: str) -> None:
    """A form post without an Origin still tells its site; reading through it is refused as well."""
    assert verdict({"sec-fetch-site": site}) == "cross_site"
    assert verdict({"sec-fetch-site": site}, method="GET", path="/metrics") == "cross_site"


def test_a_link_from_another_site_opens_our_page_but_never_the_api() -> None:
    """Following a link is no attack on a page; on the API it is refused all the same."""
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert verdict(link, method="GET", path="/") is None
    assert verdict(link, method="GET", path="/api/projects") == "cross_site"
    assert verdict(link, method="POST", path="/") == "cross_site"


@pytest.mark.parametrize(
    ("method", "path", "kind", "is_upload"),
    [
        ("POST", "/api/images/upload", "multipart/form-data; boundary=x", True),
        ("POST", "/api/images/task/an-id/upload", "Multipart/Form-Data; boundary=x", True),
        ("PUT", "/api/images/upload", "multipart/form-data", False),
        ("POST", "/api/images/upload", "application/json", False),
        ("POST", "/api/images/uploads", "multipart/form-data", False),
        ("POST", "/api/images/task/a/b/upload", "multipart/form-data", False),
        ("POST", "/api/tags", "multipart/form-data", False),
    ],
)
def test_only_an_uploads_body_is_left_to_its_route(
    method: str, path: str, kind: str, is_upload: bool
) -> None:
    """Every other body is read and bounded before any route sees it."""
    scope = {"type": "http", "method": method, "path": path}
    assert guards._is_upload(scope, {"content-type": [kind]}) is is_upload
