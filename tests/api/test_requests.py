"""A request's id is on all that comes of it; with traces on, so is its trace."""

import base64
import sys
from dataclasses import replace
from uuid import uuid4

import httpx
import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs
from tests.api.conftest import Running, running
from tests.otlp_fixtures import receiving
from websockets.asyncio.client import connect

from anyon.config import Settings
from anyon.domain.errors import MissingError
from anyon.testing.worlds import until

SHOW = ("sh", "-c", "echo id=$ANYON_REQUEST_ID parent=$TRACEPARENT")


async def project(server: Running) -> str:
    """Make a project and return its id."""
    async with server.http as http:
        made = await http.post("/api/projects", json={"name": f"p-{uuid4().hex[:6]}"})
        return str(made.json()["data"]["id"])


async def said(http: httpx.AsyncClient, process: str) -> str:
    """Return a process's output."""
    found = (await http.get(f"/api/processes/{process}/output")).json()["data"]
    return base64.b64decode(found["data"]).decode()


async def printed(server: Running, project_id: str, headers: dict[str, str]) -> tuple[str, dict]:
    """Run a command that shows its variables; return what it printed, and its record."""
    async with server.http as http:
        asked = f"/api/projects/{project_id}/exec"
        done = await http.post(asked, json={"argv": list(SHOW)}, headers=headers)
        assert done.status_code == 200, done.text
        process = done.json()["data"]["id"]

        async def is_over() -> bool:
            found = await http.get(f"/api/execution-processes/{process}")
            return found.json()["data"]["completed_at"] is not None

        await until(is_over)
        output = await said(http, process)
        record = (await http.get(f"/api/execution-processes/{process}")).json()["data"]
        return output, record


async def test_an_id_is_given_back_and_made_where_none_is_good(server: Running) -> None:
    """A well-formed one is taken, anything else replaced; refusals carry one too."""
    async with server.http as http:
        taken = await http.get("/api/health", headers={"X-Request-ID": "mine-1"})
        assert taken.headers.get_list("x-request-id") == ["mine-1"]
        for bad in ("not good", "", "x" * 100):
            made = await http.get("/api/health", headers={"X-Request-ID": bad})
            assert made.headers["x-request-id"] not in {bad, ""}
        twice = await http.get(
            "/api/health", headers=[("X-Request-ID", "one"), ("X-Request-ID", "two")]
        )
        assert twice.headers["x-request-id"] not in {"one", "two"}
        refused = await http.get(
            "/api/health", headers={"Host": "evil.example", "X-Request-ID": "r"}
        )
        assert (refused.status_code, refused.headers["x-request-id"]) == (421, "r")
        missing = await http.get(f"/api/projects/{uuid4()}", headers={"X-Request-ID": "m"})
        assert (missing.status_code, missing.headers["x-request-id"]) == (404, "m")


async def test_a_process_and_its_record_know_their_request(server: Running) -> None:
    """The id is in the process's environment and on its record; without traces there is no parent."""
    text, record = await printed(server, await project(server), {"X-Request-ID": "from-ci.42"})
    assert "id=from-ci.42 parent=\n" in text
    assert record["request_id"] == "from-ci.42"


async def test_a_chain_and_its_events_are_of_the_request_that_began_it(server: Running) -> None:
    """Setup script, agent and cleanup script carry one id; events say which request they came of."""
    async with server.http as http:
        mine = {"X-Request-ID": "maker"}
        body = {"name": "chained", "setup_script": "echo $ANYON_REQUEST_ID"}
        found = (await http.post("/api/projects", json=body, headers=mine)).json()["data"]["id"]
        task = {"project_id": found, "description": "echo $ANYON_REQUEST_ID"}
        asked = await http.post("/api/tasks", json=task, headers={"X-Request-ID": "starter"})
        task_id = asked.json()["data"]["id"]

        async def is_over() -> bool:
            seen = await http.get(f"/api/tasks/{task_id}")
            return seen.json()["data"]["status"] == "inreview"

        await until(is_over)
        attempts = (await http.get(f"/api/task-attempts?task_id={task_id}")).json()["data"]
        asked = await http.get(f"/api/execution-processes?task_attempt_id={attempts[0]['id']}")
        processes = asked.json()["data"]
        assert [one["run_reason"] for one in processes] == ["setupscript", "codingagent"]
        assert {one["request_id"] for one in processes} == {"starter"}
        for one in processes:
            assert await said(http, one["id"]) == "starter\n"
        saved = await http.post(f"/api/projects/{found}/checkpoints", headers={"X-Request-ID": "s"})
        assert saved.status_code == 200, saved.text
        events = (await http.get(f"/api/projects/{found}/events")).json()["data"]
        assert ("checkpoint.saved", "s") in {(one["kind"], one["request_id"]) for one in events}


async def test_a_stream_has_an_id_too(server: Running) -> None:
    """The answer to a WebSocket's opening carries it, and the metrics know bodies by their routes."""
    address = server.base_url.replace("http", "ws")
    headers = {"X-Request-ID": "stream-1"}
    url = f"{address}/api/tasks/stream/ws?project_id={await project(server)}"
    async with connect(url, additional_headers=headers) as stream:
        assert stream.response is not None
        assert stream.response.headers["x-request-id"] == "stream-1"
    async with server.http as http:
        told = (await http.get("/metrics")).text
    assert 'count{method="POST",route="/api/projects",status="200"} 1.0' in told
    assert 'method="POST",route="none"' not in told


async def test_every_line_of_a_request_names_it(server: Running) -> None:
    """What is logged while a request is worked on has its id, and one line tells how it ended."""
    with capture_logs(processors=[merge_contextvars]) as lines:
        async with server.http as http:
            headers = {"X-Request-ID": "logged"}
            await http.post("/api/projects", json={"name": "logged"}, headers=headers)
            await http.get("/api/health", headers={"X-Request-ID": "look"})
    served = [one for one in lines if one["event"] == "request.served"]
    (mine,) = [one for one in served if one["request_id"] == "logged"]
    assert (mine["method"], mine["path"], mine["status"]) == ("POST", "/api/projects", 200)
    assert mine["route"] == "/api/projects"
    assert mine["log_level"] == "info"
    assert [one["log_level"] for one in served if one["request_id"] == "look"] == ["debug"]
    assert {one["request_id"] for one in lines if one["event"] == "container.started"} == {"logged"}


async def test_a_trace_goes_from_the_request_to_the_process(settings: Settings) -> None:
    """A real receiver is sent one trace: request, service, engine, start; the process knows it too."""
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with receiving() as receiver:
        async with running(replace(settings, traces_endpoint=receiver.endpoint)) as server:
            found = await project(server)
            headers = {"X-Request-ID": "traced", "traceparent": caller}
            text, _ = await printed(server, found, headers)
            async with server.http as http:
                await http.get("/metrics")
                accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
                told = (await http.get("/metrics", headers=accept)).text
        mine = [one for one in receiver.spans if one.trace_id == caller.split("-")[1]]
        lines = [receiver.line_of(one) for one in mine]
        assert receiver.services == {"anyon"}
        name = "POST /api/projects/{project_id}/exec"
        first = next(one for one in mine if one.name == name)
        assert first.attributes["url.path"] == f"/api/projects/{found}/exec"
        assert first.parent_id == caller.split("-")[2]
        assert first.attributes["request_id"] == "traced"
        assert [name, "container.bring_up"] in lines
        assert [name, "process.start"] in lines
        assert any(line[-1].startswith("engine.") for line in lines)
        assert any(line[-1] == "database.write" for line in lines)
        assert f"parent=00-{first.trace_id}-" in text
        assert "url.path" not in str([one for one in receiver.spans if "/metrics" in str(one)])
        assert f'{{trace_id="{first.trace_id}"}}' in told
        made = next(one for one in receiver.spans if one.name == "engine.start")
        assert receiver.line_of(made)[:2] == ["POST /api/projects", "container.bring_up"]


async def test_nothing_is_sent_unless_it_is_asked_for(settings: Settings) -> None:
    """The receiver above is not blind: with the setting empty, as it is by default, it gets nothing."""
    with receiving() as receiver:
        async with running(settings) as server:
            await printed(server, await project(server), {})
        assert receiver.spans == []


async def test_a_receiver_that_is_away_harms_nothing(settings: Settings) -> None:
    """Work goes on, and the server ends in time, whatever becomes of its traces."""
    away = replace(settings, traces_endpoint="http://127.0.0.1:9/v1/traces")
    async with running(away) as server:
        text, _ = await printed(server, await project(server), {"X-Request-ID": "alone"})
    assert "id=alone" in text


async def test_switched_on_without_the_package(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server does not start and says what to install; nothing is left behind."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingError, match="not installed") as told:
        async with running(replace(settings, traces_endpoint="http://127.0.0.1:9/v1/traces")):
            pass
    assert told.value.code == "traces_missing"
    assert "anyon[traces]" in told.value.hint
