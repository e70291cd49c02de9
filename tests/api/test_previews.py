"""Previews over HTTP: who may see one, what reaches the server inside, and what it costs."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from tests.api.conftest import Running, running
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from anyon.config import Settings
from anyon.domain.ids import ProjectId
from anyon.sdk.errors import ApiError
from anyon.sdk.models import Project
from anyon.sdk.requests import CreateProject, Exec
from anyon.testing.ports_contract import free_port
from anyon.testing.worlds import until

SERVER = Path(__file__).parents[1] / "preview_server.py"


class Shown:
    """A project in which a server listens, and a browser's way to it."""

    def __init__(self, server: Running, project: Project, port: int, process: str) -> None:
        self.server = server
        self.project = project
        self.port = port
        self.process = process
        self.cookie = ""

    @property
    def host(self) -> str:
        """The preview's name, as a browser sends it."""
        return f"{self.port}--{self.project.id}.preview.localhost:{self.server.server.port}"

    async def enter(self) -> str:
        """Follow a new link, and keep the session."""
        link = await self.server.client.previews.link(self.project.id, self.port)
        assert link.origin == f"http://{self.host}"
        path = link.url.removeprefix(link.origin)
        answer = await self.get(path, follow=False)
        assert answer.status_code == 303, answer.text
        set_cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in set_cookie
        assert "Domain" not in set_cookie
        self.cookie = set_cookie.partition(";")[0]
        return path

    async def get(self, path: str, *, follow: bool = True, **headers: str) -> httpx.Response:
        """Ask for a page."""
        return await self.ask("GET", path, follow=follow, **headers)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        follow: bool = False,
        content: object = None,
        **headers: str,
    ) -> httpx.Response:
        """Send a request under the preview's name, with the session if there is one."""
        given = {"host": self.host, **({"cookie": self.cookie} if self.cookie else {}), **headers}
        async with self.server.http as http:
            return await http.request(
                method,
                path,
                headers={key.replace("_", "-"): value for key, value in given.items()},
                content=content,
                follow_redirects=follow,
            )

    async def leases(self) -> list[str]:
        """Return the previews that hold the project awake."""
        awake = await self.server.client.lives.awake(self.project.id)
        return [lease.holder for lease in awake.leases if lease.reason == "preview"]


async def show(server: Running, project: Project) -> Shown:
    """Start the test's server in the project."""
    port = free_port()
    script = SERVER.read_text()
    process = await server.client.projects.exec(
        project.id, Exec(argv=["python3", "-c", script, str(port)])
    )

    async def listens() -> bool:
        found = await server.client.previews.ports(project.id)
        return port in (found.ports or [])

    await until(listens)
    return Shown(server, project, port, str(process.id))


@pytest.fixture
async def shown(server: Running) -> AsyncIterator[Shown]:
    """One that was not entered yet."""
    project = await server.client.projects.create(CreateProject(name="demo"))
    found = await show(server, project)
    yield found
    await server.client.processes.stop(found.process)


async def test_a_link_opens_a_preview_once(shown: Shown) -> None:
    """The ticket is worth one session, which is for one port; all others get the same answer."""
    stranger = await shown.get("/")
    assert stranger.status_code == 404
    path = await shown.enter()
    page = await shown.get("/hello?x=1")
    assert page.status_code == 200, page.text
    assert json.loads(page.text)["target"] == "/hello?x=1"
    cookie, shown.cookie = shown.cookie, ""
    again = await shown.get(path, follow=False)
    assert (again.status_code, again.json()) == (404, stranger.json())
    shown.cookie = cookie
    assert (await shown.get("/")).status_code == 200


async def test_whoever_may_not_see_it_learns_nothing(shown: Shown) -> None:
    """Another port, another project, an unknown one, a changed session: one answer, and no wake."""
    client = shown.server.client
    other = await client.projects.create(CreateProject(name="other"))
    await shown.enter()
    unknown = "00000000-0000-4000-8000-00000000dead"
    tampered = shown.cookie[:-1] + ("0" if shown.cookie[-1] != "0" else "1")
    end = f"preview.localhost:{shown.server.server.port}"
    answers = [
        await shown.get("/", host=f"{shown.port + 1}--{shown.project.id}.{end}"),
        await shown.get("/", host=f"{shown.port}--{other.id}.{end}"),
        await shown.get("/", host=f"{shown.port}--{unknown}.{end}"),
        await shown.get("/", host=f"80--{shown.project.id}.{end}"),
        await shown.get("/", host=f"x--{shown.project.id}.{end}"),
        await shown.get("/", host=end),
        await shown.get("/", cookie=tampered),
        await shown.get("/", cookie=""),
        await shown.get("/.anyon/enter?ticket=guess"),
    ]
    assert {one.status_code for one in answers} == {404}
    assert len({one.text for one in answers}) == 1
    assert "preview_unknown" in answers[0].text
    assert (await client.lives.awake(other.id)).leases == []
    assert (await shown.get("/")).status_code == 200  # the control


async def test_the_api_is_not_on_a_previews_origin(shown: Shown) -> None:
    """Paths of the API below a preview's name go to the project's server, never to the API."""
    await shown.enter()
    paths = ("/api/projects", "/metrics", "//api/projects", "/x/../../api/projects", "/%2e%2e/api")
    for path in paths:
        reader, writer = await asyncio.open_connection("127.0.0.1", shown.server.server.port)
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {shown.host}\r\nCookie: {shown.cookie}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        answer = await asyncio.wait_for(reader.read(-1), 30)
        writer.close()
        assert f'"target": "{path}"'.encode() in answer, path
    shown.cookie = ""
    assert (await shown.get("/api/projects")).status_code == 404
    # And the other way: the API's own name shows no preview, whatever other headers say.
    smuggled = await shown.get(
        "/api/projects",
        host=shown.server.base_url.removeprefix("http://"),
        x_forwarded_host=shown.host,
    )
    assert smuggled.json()["success"] is True


async def test_two_hosts_in_one_request_are_refused(shown: Shown) -> None:
    """Whichever is first: a request that names two hosts reaches neither API nor preview."""
    await shown.enter()
    own = shown.server.base_url.removeprefix("http://")
    for pair in ((shown.host, own), (own, shown.host)):
        reader, writer = await asyncio.open_connection("127.0.0.1", shown.server.server.port)
        head = "".join(f"Host: {one}\r\n" for one in pair)
        writer.write(
            f"GET /api/projects HTTP/1.1\r\n{head}Cookie: {shown.cookie}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        answer = await asyncio.wait_for(reader.read(-1), 30)
        writer.close()
        assert answer.split()[1] in {b"400", b"404", b"421"}, answer[:200]


async def test_what_the_server_inside_is_told(shown: Shown) -> None:
    """It sees itself as localhost, its own cookies, and neither our session nor a key to the API."""
    await shown.enter()
    answer = await shown.get(
        "/a//b/c%2Fd?q=%20",
        cookie=f"own=1; {shown.cookie}; more=2",
        origin=f"http://{shown.host}",
        authorization="Bearer anyon_secret",
        x_forwarded_host="evil.example",
        connection="keep-alive, x-hop",
        x_hop="1",
    )
    seen = answer.json()
    assert seen["target"] == "/a//b/c%2Fd?q=%20"
    headers = {key.lower(): value for key, value in seen["headers"]}
    assert headers["host"] == f"localhost:{shown.port}"
    assert headers["origin"] == f"http://localhost:{shown.port}"
    assert headers["cookie"] == "own=1; more=2"
    assert [key for key, _ in seen["headers"]].count("x-forwarded-host") == 1
    assert headers["x-forwarded-host"] == shown.host
    assert "authorization" not in headers
    assert "x-hop" not in headers
    theirs = await shown.get("/", authorization="Bearer theirs")  # the control: its own logins pass
    assert ["authorization", "Bearer theirs"] in [
        [key.lower(), value] for key, value in theirs.json()["headers"]
    ]


async def test_what_the_browser_is_told(shown: Shown) -> None:
    """Cookies stay with this host, a redirect to localhost comes to the preview, ours is not set."""
    await shown.enter()
    answer = await shown.get("/cookies", follow=False)
    assert answer.status_code == 302
    assert answer.headers["location"] == f"http://{shown.host}/next?a=1"
    assert answer.headers.get_list("set-cookie") == ["a=1; Path=/", "b=2"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_any_method_with_a_body(shown: Shown, method: str) -> None:
    """What is sent arrives, whatever it is called."""
    await shown.enter()
    answer = await shown.ask(method, "/echo", content=b"body")
    assert answer.json()["method"] == method
    assert answer.json()["length"] == 4


async def test_bodies_are_streamed_both_ways(shown: Shown) -> None:
    """32 MB go up in pieces, without a length, and come down again, far beyond what the API takes."""
    await shown.enter()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(32):
            yield bytes(1024 * 1024)

    up = await shown.ask("POST", "/echo", content=pieces())
    assert up.json()["length"] == 32 * 1024 * 1024
    sized = await shown.ask("POST", "/echo", content=bytes(3 * 1024 * 1024))
    assert sized.json()["length"] == 3 * 1024 * 1024
    down = await shown.get("/big")
    assert len(down.content) == 32 * 1024 * 1024
    head = await shown.ask("HEAD", "/big")
    assert (head.status_code, head.content) == (200, b"")


async def test_an_answer_comes_while_the_question_is_still_sent(shown: Shown) -> None:
    """The first event of a stream is seen long before its end, and the server learns that the client left."""
    await shown.enter()
    async with shown.server.http as http:
        headers = {"host": shown.host, "cookie": shown.cookie}
        async with http.stream("GET", "/events", headers=headers) as answer:
            first = await anext(answer.aiter_raw())
            assert b"data: 0" in first

    async def has_ended() -> bool:
        return bool((await shown.get("/ended")).json()["ended"])

    await until(has_ended)


async def test_websockets_carry_frames_and_the_chosen_subprotocol(shown: Shown) -> None:
    """Text, bytes and a large frame come back; who has no session is refused like the unknown."""
    await shown.enter()
    uri = f"ws://{shown.host}/ws?x=1"
    own = {"Cookie": shown.cookie, "Origin": f"http://{shown.host}"}
    async with connect(
        uri,
        host="127.0.0.1",
        additional_headers=own,
        subprotocols=["vite-hmr"],
        proxy=None,
        max_size=None,
    ) as socket:
        assert socket.subprotocol == "vite-hmr"
        for data in ("grüß", b"\x00\xff", "x" * 500_000):
            await socket.send(data)
            assert await socket.recv() == data
        await socket.send("close")
        with pytest.raises(ConnectionClosed) as end:
            await socket.recv()
        assert end.value.rcvd is not None
        assert (end.value.rcvd.code, end.value.rcvd.reason) == (4001, "bye")
    for wrong, status in (
        ({**own, "Cookie": "anyon-preview=x"}, 404),
        ({**own, "Origin": "http://evil.example"}, 403),
    ):
        with pytest.raises(InvalidStatus) as told:
            await connect(uri, host="127.0.0.1", additional_headers=wrong, proxy=None)
        assert told.value.response.status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec_fetch_site": "same-origin", "sec_fetch_mode": "cors"}, 200),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}, 200),
        ({"sec_fetch_site": "same-site", "sec_fetch_mode": "no-cors"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "cors"}, 403),
        ({"origin": "http://3000--00000000-0000-4000-8000-00000000dead.preview.localhost"}, 403),
        ({"origin": "null"}, 403),
    ],
)
async def test_another_site_may_only_link_to_it(
    shown: Shown, headers: dict[str, str], status: int
) -> None:
    """A preview of somebody else is another site as well, though its name ends alike."""
    await shown.enter()
    assert (await shown.get("/", **headers)).status_code == status


async def test_nothing_listens_is_told_with_a_hint(shown: Shown) -> None:
    """Without a server there is 503 with what to do, as a page where a page is wanted, and no lease."""
    await shown.enter()
    await shown.server.client.processes.stop(shown.process)
    answer = await shown.get("/")
    assert answer.status_code == 503
    assert answer.json()["error_data"]["code"] == "nothing_listens"
    assert answer.json()["error_data"]["hint"]
    page = await shown.get("/", accept="text/html")
    assert page.headers["content-type"].startswith("text/html")
    assert "nothing listens" in page.text


async def test_a_server_that_speaks_no_http_is_told(shown: Shown) -> None:
    """An answer that cannot be read is 502, and one that breaks off is no whole one for the client."""
    await shown.enter()
    bad = await shown.get("/garbage")
    assert (bad.status_code, bad.json()["error_data"]["code"]) == (502, "preview_bad_answer")
    with pytest.raises(httpx.RemoteProtocolError):
        await shown.get("/short")


async def test_traffic_holds_the_project_and_silence_does_not(settings: Settings) -> None:
    """A request takes the lease, which `awake` lists; an open, silent WebSocket does not keep it."""
    quick = replace(settings, preview_awake=timedelta(seconds=5))
    async with running(quick) as server:
        project = await server.client.projects.create(CreateProject(name="demo"))
        shown = await show(server, project)
        assert await shown.leases() == []
        await shown.enter()
        assert await shown.leases() == []  # a link is no traffic
        own = {"Cookie": shown.cookie}
        async with connect(
            f"ws://{shown.host}/ws", host="127.0.0.1", additional_headers=own, proxy=None
        ) as socket:
            assert await shown.leases() == [f"preview of port {shown.port}"]

            async def is_let_go() -> bool:
                return await shown.leases() == []

            await until(is_let_go)
            await socket.send("again")
            assert await socket.recv() == "again"
            assert await shown.leases() == [f"preview of port {shown.port}"]
            began = time.monotonic()
            await socket.send("push")  # the server talks for a minute: output alone is nothing
            await until(is_let_go)
            assert time.monotonic() - began < 50
        await server.client.processes.stop(shown.process)


async def test_a_session_wakes_and_no_session_does_not(server: Running) -> None:
    """From frozen a request goes on where the server was; from stopped only a page's own load starts."""
    project = await server.client.projects.create(CreateProject(name="demo"))
    shown = await show(server, project)
    await shown.enter()
    engine_id = ProjectId(str(project.id))
    engine = server.services.containers._engine
    await engine.freeze(engine_id)
    cookie, shown.cookie = shown.cookie, ""
    assert (await shown.get("/")).status_code == 404
    info = await engine.inspect(engine_id)
    assert info is not None
    assert info.state == "frozen"
    shown.cookie = cookie
    assert (await shown.get("/", sec_fetch_dest="empty")).status_code == 200

    await server.client.processes.stop(shown.process)
    await server.services.containers.halt(engine_id)
    await server.services.containers.record(engine_id, "stopped", reason="test")
    for traffic in server.services.previews._traffic.values():
        await traffic.let_go()
    for _ in range(2):
        asleep = await shown.get("/", sec_fetch_dest="empty")
        assert asleep.json()["error_data"]["code"] == "preview_asleep"
    info = await engine.inspect(engine_id)
    assert info is not None
    assert info.state == "stopped"
    loaded = await shown.get("/", sec_fetch_dest="document", sec_fetch_mode="navigate")
    assert loaded.json()["error_data"]["code"] == "nothing_listens"
    assert (await engine.inspect(engine_id)).state == "running"
    assert await shown.leases() == []  # nothing was carried: nothing is held


async def test_a_session_ends_with_its_time_its_token_and_its_project(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expired, made with a token that was revoked since, or of a deleted project: unknown again."""
    async with running(settings) as server:
        project = await server.client.projects.create(CreateProject(name="demo"))
        shown = await show(server, project)
        monkeypatch.setattr("anyon.services.previews.SESSION_LIFE", timedelta(seconds=-1))
        await shown.enter()
        assert (await shown.get("/")).status_code == 404
        monkeypatch.undo()
        await shown.enter()
        assert (await shown.get("/")).status_code == 200
        await server.client.processes.stop(shown.process)
        await server.client.projects.delete(project.id)
        assert (await shown.get("/")).status_code == 404


async def test_a_link_that_cannot_be_is_refused(server: Running) -> None:
    """Ports of the machine's own services, and a server without a name for previews."""
    project = await server.client.projects.create(CreateProject(name="demo"))
    with pytest.raises(ApiError) as told:
        await server.client.previews.link(project.id, 22)
    assert (told.value.status, told.value.code) == (422, "bad_port")
