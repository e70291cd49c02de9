"""Who may use the server: other sites, other names, other tenants, and bodies of every kind."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest
from tests.api.conftest import Running, running
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from anyon.api.guards import MAX_BODY_BYTES
from anyon.config import Settings
from anyon.db import users
from anyon.domain.actors import Actor
from anyon.domain.ids import LOCAL_USER, UserId
from anyon.sdk.clients import Client
from anyon.sdk.errors import ApiError
from anyon.sdk.requests import CreateProject, CreateTag, CreateTask, CreateToken, Hold, Move

EVIL = "https://evil.example"
STRANGER = UserId("00000000-0000-4000-8000-0000000000ff")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 200, None),  # the control: what a program sends passes
        ({"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}, 200, None),
        ({"Host": "evil.example"}, 421, "host_not_allowed"),
        (
            {"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"},
            421,
            "host_not_allowed",
        ),
        ({"Origin": EVIL}, 403, "cross_site"),
        ({"Origin": "null"}, 403, "cross_site"),
        ({"Origin": "http://localhost:{port}"}, 403, "cross_site"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "cross_site"),
    ],
)
async def test_a_web_page_cannot_create_a_project(
    server: Running, headers: dict[str, str], status: int, code: str | None
) -> None:
    """A simple request from another site or through a rebound name is refused and does nothing."""
    port = server.base_url.rsplit(":", 1)[1]
    sent = {name: value.format(port=port) for name, value in headers.items()}
    async with server.http as http:
        answer = await http.post(
            "/api/projects",
            content=b'{"name": "p"}',
            headers={"Content-Type": "text/plain", **sent},
        )
        body = answer.json()
        assert answer.status_code == status, body
        assert (body["error_data"] or {}).get("code") == code
        assert len(await server.client.projects.list()) == (1 if status == 200 else 0)
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 101),  # the control
        ({"Origin": EVIL}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
async def test_a_web_page_cannot_open_a_stream_or_a_terminal(
    server: Running, headers: dict[str, str], status: int
) -> None:
    """Cross-site WebSockets are refused at the opening, for reading and for terminals."""
    headers = dict(headers)
    project = await server.client.projects.create(CreateProject(name="p"))
    port = int(server.base_url.rsplit(":", 1)[1])
    name = headers.pop("Host", "127.0.0.1")
    origin = headers.pop("Origin", None)
    for path in (f"/tasks/stream/ws?project_id={project.id}", f"/projects/{project.id}/terminal"):
        opening = connect(
            f"ws://{name}:{port}/api{path}",
            proxy=None,
            host="127.0.0.1",  # where the connection goes, whatever it is called
            port=port,
            origin=origin,
            additional_headers=headers,
        )
        if status == 101:
            async with opening:
                continue
        with pytest.raises(InvalidStatus) as caught:
            await opening
        assert caught.value.response.status_code == status
        assert json.loads(bytes(caught.value.response.body))["success"] is False


@pytest.fixture
async def guarded(settings: Settings) -> AsyncIterator[Running]:
    """A server that asks for tokens, and knows a second tenant."""
    async with running(replace(settings, require_tokens=True)) as one:
        await one.services.db.write(users.ensure, STRANGER, "stranger", datetime.now(UTC))
        yield one


async def token(server: Running, user: UserId, *scopes: str) -> str:
    """Return a new token's secret."""
    wanted = {"scopes": frozenset(scopes)} if scopes else {}
    return (await server.services.tokens.create(Actor(user), "test", **wanted))[1]


async def test_nothing_but_health_is_told_without_a_token(guarded: Running) -> None:
    """Every route of the OpenAPI document, without a token and with a wrong one, answers 401."""
    async with guarded.http as http:
        assert (await http.get("/api/health")).status_code == 200
        for headers in (
            {},
            {"Authorization": "Bearer anyon_wrong"},
            {"Authorization": "Basic eA=="},
        ):
            for method, path in _operations(guarded):
                answer = await http.request(method, path, headers=headers, content=b"{}")
                assert answer.status_code == 401, (method, path, answer.text)
                assert answer.json()["success"] is False


async def test_only_the_operator_reads_the_metrics(guarded: Running) -> None:
    """They name everybody's projects; a tenant's good token is not enough, the operator's is."""
    async with guarded.http as http:
        for user, status in ((LOCAL_USER, 200), (STRANGER, 403)):
            headers = {"Authorization": f"Bearer {await token(guarded, user)}"}
            answer = await http.get("/metrics", headers=headers)
            assert answer.status_code == status, answer.text


async def test_a_tenant_cannot_move_what_is_anothers(guarded: Running) -> None:
    """The operator is listed everybody's projects and may move them, a tenant only their own."""
    async with (
        Client(guarded.base_url, await token(guarded, LOCAL_USER)) as operator,
        Client(guarded.base_url, await token(guarded, STRANGER)) as tenant,
    ):
        own = await operator.projects.create(CreateProject(name="same"))
        theirs = await tenant.projects.create(CreateProject(name="same"))
        assert [one.id for one in await tenant.lives.movable()] == [theirs.id]
        assert {one.id: str(one.user_id) for one in await operator.lives.movable()} == {
            own.id: LOCAL_USER,
            theirs.id: STRANGER,
        }
        with pytest.raises(ApiError) as refused:
            await tenant.lives.move(own.id, Move(to="disk"))
        assert (refused.value.status, refused.value.code) == (404, "project_unknown")
        # The control: asked by the operator it is found (and lies there already), the tenant's too.
        for project in (own, theirs):
            assert (await operator.lives.move(project.id, Move(to="disk"))).state == "there"


async def test_a_tenant_cannot_tell_that_anothers_things_exist(guarded: Running) -> None:
    """Every route with another's id answers as with an unknown id: 404, the same words."""
    secret = await token(guarded, LOCAL_USER)
    async with Client(guarded.base_url, secret) as owner:
        project = await owner.projects.create(CreateProject(name="private"))
        new = CreateTask(project_id=project.id, title=None, description="echo x; sleep 0.2")
        task = await owner.tasks.create(new)
        [attempt] = await owner.attempts.list(task.id)
        [process] = await owner.attempts.processes(attempt.id)
        known = (await owner.tokens.list())[0]
        ids = {
            "project_id": project.id,
            "task_id": task.id,
            "attempt_id": attempt.id,
            "task_attempt_id": attempt.id,
            "process_id": process.id,
            "token_id": known.id,
            "image_id": (await owner.images.upload("x.svg", b"<svg/>", task=task.id)).id,
            "tag_id": (await owner.tags.create(CreateTag(tag_name="x", content="x"))).id,
            "checkpoint_id": (await owner.lives.save(project.id)).id,
            "port": 3000,
            "lease_id": (await owner.lives.hold(project.id, Hold(reason="x", minutes=1))).id,
        }
        unknown = dict.fromkeys(ids, "00000000-0000-4000-8000-00000000dead") | {"port": 3000}
        headers = {"Authorization": f"Bearer {await token(guarded, STRANGER)}"}
        tried = 0
        async with guarded.http as http:
            for method, path in _operations(guarded, only_with_ids=True):
                answers = [
                    await http.request(
                        method,
                        path.format(**some),
                        headers=headers,
                        json=_BODY
                        | {"project_id": str(some["project_id"]), "task_id": str(some["task_id"])},
                    )
                    for some in (ids, unknown)
                ]
                assert [one.status_code for one in answers] == [404, 404], (
                    method,
                    path,
                    answers[0].text,
                )
                assert answers[0].json() == answers[1].json(), (method, path)
                tried += 1
            assert (await http.get("/api/projects", headers=headers)).json()["data"] == []
        assert tried >= 20
        # The control: to its owner every one of them is there.
        assert (await owner.projects.get(project.id)).name == "private"
        assert (await owner.tasks.get(task.id)).id == task.id


_BODY: dict[str, object] = {
    "ref": "refs/anyon/saved/00000000-0000-4000-8000-000000000001/0001",
    "prompt": "x",
    "name": "x",
    "argv": ["true"],
    "title": "x",
    "reason": "x",
    "minutes": 1,
    "to": "disk",
    "branch": "x",
}


def _operations(server: Running, *, only_with_ids: bool = False) -> list[tuple[str, str]]:
    """Return each route of the document, with its query's ids filled in by name."""
    found = []
    for path, methods in server.app.openapi()["paths"].items():
        if path == "/api/health":
            continue
        for method, operation in methods.items():
            needed = [
                one["name"]
                for one in operation.get("parameters", [])
                if one["in"] == "query" and one["required"]
            ]
            query = "&".join(f"{name}={{{name}}}" for name in needed)
            whole = f"{path}?{query}" if query else path
            if only_with_ids and "{" not in whole and path != "/api/task-attempts":
                continue
            found.append((method.upper(), whole))
    return found


async def test_a_token_may_do_what_its_scopes_say(guarded: Running) -> None:
    """A reading token reads; it neither writes nor makes itself a better one; revoked, it is nothing."""
    reader_secret = await token(guarded, LOCAL_USER, "read")
    owner_secret = await token(guarded, LOCAL_USER)
    async with (
        Client(guarded.base_url, reader_secret) as reader,
        Client(guarded.base_url, owner_secret) as owner,
    ):
        assert await reader.projects.list() == []
        for refused in (
            reader.projects.create(CreateProject(name="p")),
            reader.tokens.create(CreateToken(name="better")),
            reader.tokens.list(),
        ):
            with pytest.raises(ApiError) as caught:
                await refused
            assert (caught.value.status, caught.value.code) == (403, "scope_missing")
        project = await owner.projects.create(CreateProject(name="p"))
        with pytest.raises(ApiError) as caught:
            async with reader.projects.terminal(project.id):
                pass
        assert caught.value.code == "scope_missing"
        made = await owner.tokens.create(CreateToken(name="more"))
        assert made.secret.startswith("anyon_")
        await owner.tokens.revoke(made.token.id)
        async with Client(guarded.base_url, made.secret) as nobody:
            with pytest.raises(ApiError) as caught:
                await nobody.projects.list()
            assert caught.value.status == 401


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "invalid_input"),
        (b"not json", 400, "not_json"),
        (b"\xff\xfe", 400, "not_json"),
        (b"[" * 100_000, 400, "not_json"),
        (b"[]", 422, "invalid_input"),
        (b"null", 422, "invalid_input"),
        (b'{"name": 3}', 422, "invalid_input"),
        (b'{"name": "a\\u0000b"}', 422, "invalid_input"),
        (b'{"name": "\\ud800"}', 422, "invalid_input"),
        (b'{"name": ""}', 422, "name_empty"),
        (b'{"name": "../x"}', 422, "name_path_like"),
        (b'{"name": "' + b"x" * 5000 + b'"}', 422, "invalid_input"),
        (b'{"name": "p", "clone_url": "ext::sh -c id"}', 422, "bad_clone_url"),
        (b" " * (MAX_BODY_BYTES + 1), 413, "body_too_large"),
    ],
)
async def test_a_bad_body_is_a_clear_error(
    server: Running, content: bytes, status: int, code: str
) -> None:
    """Each kind of bad body has its status and code, in the envelope, and makes nothing."""
    async with server.http as http:
        answer = await http.post("/api/projects", content=content)
        body = answer.json()
        assert (answer.status_code, body["error_data"]["code"]) == (status, code), answer.text
        assert set(body) == {"success", "data", "error_data", "message"}
        assert body["message"]
        assert await server.client.projects.list() == []


async def test_a_body_without_a_length_is_bounded_too(server: Running) -> None:
    """A body that comes in pieces is refused once it is too large."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 65536 + 2):
            yield b" " * 65536

    async with server.http as http:
        try:
            answer = await http.post("/api/projects", content=pieces())
        except httpx.WriteError:
            return  # it closed the connection on us in the middle: refused as well
        assert answer.status_code == 413


async def test_ids_and_routes_that_are_not_there(server: Running) -> None:
    """No id, an unknown one, no such route, the wrong method: each in the envelope."""
    async with server.http as http:
        for method, path, status in (
            ("GET", "/api/projects/nonsense", 400),
            ("GET", "/api/projects/00000000-0000-4000-8000-00000000dead", 404),
            ("GET", "/api/tasks", 400),
            ("GET", "/api/tasks?project_id=%00", 400),
            ("GET", "/api/nothing", 404),
            ("PATCH", "/api/projects", 405),
        ):
            answer = await http.request(method, path)
            assert answer.status_code == status, (method, path, answer.text)
            assert answer.json()["success"] is False
            assert answer.json()["error_data"]["code"]
