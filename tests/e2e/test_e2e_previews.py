"""Previews on real engines: a real server in a container, seen through Anyon and only so."""

import json
import time
from pathlib import Path
from socket import create_connection
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import pytest
from tests.e2e.test_e2e_lives import anyon, data
from websockets.sync.client import connect

from anyon.testing.ports_contract import free_port
from anyon.testing.servers import ServerProcess, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SERVER = Path(__file__).parents[1] / "preview_server.py"


class _Stay(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


class Browser:
    """What a browser keeps of a preview: its name and its session."""

    def __init__(self, server: ServerProcess, project: str, port: int) -> None:
        self._server = server
        link = data(server, "preview", project, str(port))
        self.host = link["origin"].removeprefix("http://")
        self.cookie = ""
        entered = self.get(link["url"].removeprefix(link["origin"]))
        assert entered[0] == 303
        self.cookie = entered[2]["set-cookie"].partition(";")[0]

    def get(self, path: str, **more: str) -> tuple[int, bytes, dict[str, str]]:
        """Return a request's status, body and headers."""
        headers = {"Host": self.host, "Cookie": self.cookie, **more}
        request = Request(self._server.address + path, headers=headers)
        try:
            with build_opener(_Stay).open(request, timeout=90) as answer:
                return answer.status, answer.read(), _lower(answer.headers.items())
        except HTTPError as error:
            return error.code, error.read(), _lower(error.headers.items())


def _lower(headers: list[tuple[str, str]]) -> dict[str, str]:
    return {key.lower(): value for key, value in headers}


def until_listens(server: ServerProcess, project: str, port: int) -> None:
    """Wait until the port is listed."""
    deadline = time.monotonic() + 90
    found = {one["name"]: one["id"] for one in server.call("GET", "/api/projects")}
    path = f"/api/projects/{found[project]}/ports"
    while port not in (server.call("GET", path)["ports"] or []):
        assert time.monotonic() < deadline, "nothing listens"
        time.sleep(0.2)


@pytest.fixture
def quick(tmp_path: Path, engine: str) -> ServerProcess:
    """A server on each engine that freezes and stops soon, with images that have python."""
    times = {
        "ANYON_IMAGE": "anyon/workspace:full",
        "ANYON_PREVIEW_AWAKE": "2s",
        "ANYON_RECONCILE_INTERVAL": "200ms",
        "ANYON_FREEZE_AFTER": "1s",
        "ANYON_STOP_AFTER": "20s",
    }
    with serving(tmp_path / "home", engine, **times) as server:
        yield server


def awake(server: ServerProcess, project: str) -> Any:
    """Return how the project stands."""
    found = {one["name"]: one["id"] for one in server.call("GET", "/api/projects")}
    return server.call("GET", f"/api/projects/{found[project]}/awake")


def phase(server: ServerProcess, project: str) -> str:
    """Return what the project was last seen as."""
    return str(awake(server, project)["phase"])


def wait_for(server: ServerProcess, project: str, *wanted: str) -> None:
    """Wait until the project is in one of the phases."""
    deadline = time.monotonic() + 120
    while (seen := phase(server, project)) not in wanted:
        assert time.monotonic() < deadline, f"still {seen}, not {wanted}"
        time.sleep(0.2)


def test_a_preview_lives_with_its_project(quick: ServerProcess) -> None:
    """Seen while it runs, held by traffic, frozen and stopped in silence, woken by a load alone."""
    anyon(quick, "project", "create", "shop")
    port = free_port()
    anyon(quick, "project", "hold", "shop", "--reason", "start", "--for", "5m")
    script = f"cat > server.py; setsid python3 server.py {port} >/dev/null 2>&1 & sleep 1"
    anyon(
        quick,
        *("exec", "shop", "--", "sh", "-c"),
        script.replace("cat >", f"printf %s {_quoted(SERVER.read_text())} >"),
    )
    until_listens(quick, "shop", port)
    browser = Browser(quick, "shop", port)
    assert json.loads(browser.get("/a//b?c=1")[1])["target"] == "/a//b?c=1"
    assert len(browser.get("/big")[1]) == 32 * 1024 * 1024
    own = {"Cookie": browser.cookie}
    wire = create_connection(("127.0.0.1", quick.port), 60)
    socket = connect(f"ws://{browser.host}/ws", sock=wire, additional_headers=own)
    with socket:
        deadline = time.monotonic() + 90
        holders: set[str] = set()
        while f"preview of port {port}" not in holders:
            # It holds for two seconds, which a loaded machine may need to look.
            assert time.monotonic() < deadline, holders
            socket.send("hot")
            assert socket.recv(timeout=60) == "hot"
            holders = {one["holder"] for one in awake(quick, "shop")["leases"]}
        anyon(quick, "project", "release", "shop")
        wait_for(quick, "shop", "frozen")  # an open WebSocket on which nobody speaks holds nothing
        socket.send("again")  # and goes on where it was
        assert socket.recv(timeout=60) == "again"
    wait_for(quick, "shop", "frozen")
    assert browser.get("/", Cookie="anyon-preview=x")[0] == 404
    status, body, _ = browser.get("/", **{"Sec-Fetch-Dest": "empty"})
    assert (status, json.loads(body)["method"]) == (200, "GET")  # thawed: the same program answers
    wait_for(quick, "shop", "stopped")
    stopped = browser.get("/", Cookie="anyon-preview=x")
    asleep = browser.get("/", **{"Sec-Fetch-Dest": "empty"})
    assert (stopped[0], asleep[0]) == (404, 503)
    assert b"preview_asleep" in asleep[1]
    assert phase(quick, "shop") == "stopped"
    loaded = browser.get("/", **{"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"})
    assert loaded[0] == 503
    assert b"nothing_listens" in loaded[1]
    kinds = [one["kind"] for one in data(quick, "project", "events", "shop")]
    assert kinds[-1] in {"phase.running", "phase.frozen"}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def test_a_preview_reaches_neither_host_nor_neighbour(server: ServerProcess) -> None:
    """The API's own port, and another project's, are not the project's: nothing of them is shown."""
    port = free_port()
    for name in ("one", "two"):
        anyon(server, "project", "create", name)
    anyon(
        server,
        *("exec", "two", "--detach", "--"),
        *("python3", "-m", "http.server", "--bind", "127.0.0.1", str(port)),
    )
    until_listens(server, "two", port)
    assert browser_status(server, "two", port) == 200  # the control
    refused = {503, 409}
    assert browser_status(server, "one", port) in refused
    assert browser_status(server, "one", server.port) in refused
    assert data(server, "project", "ports", "one")["ports"] == []


def browser_status(server: ServerProcess, project: str, port: int) -> int:
    """Return what a load of a preview's first page answers."""
    return Browser(server, project, port).get("/")[0]
