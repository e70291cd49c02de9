"""Reading what a process wrote: by offset, waiting, and as server-sent events."""

import asyncio
import base64
import json

import httpx
from tests.api.conftest import Running

from anyon.api.apps import begin_shutdown
from anyon.domain.actors import LOCAL_ACTOR as LOCAL
from anyon.sdk.requests import CreateProject, CreateTask, Exec


async def start(server: Running, script: str) -> str:
    """Start a script in a new project and return the process's id."""
    project = await server.client.projects.create(CreateProject(name="p"))
    command = Exec(argv=["sh", "-c", script])
    return str((await server.client.projects.exec(project.id, command)).id)


def events(text: str) -> list[dict[str, str]]:
    """Return the events of a finished stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")
        )
        if fields:
            found.append(fields)
    return found


def output(found: list[dict[str, str]], channel: str) -> bytes:
    """Return the bytes of one channel."""
    chunks = [json.loads(one["data"]) for one in found if one["event"] == "output"]
    return b"".join(base64.b64decode(c["data"]) for c in chunks if c["channel"] == channel)


async def test_the_last_event_id_wins_over_the_cursor(server: Running) -> None:
    """A client that reconnects goes on where it was, whatever its address says."""
    process = await start(server, "printf 0123456789; printf abcdef >&2")
    await server.client.processes.wait(process)
    async with server.http as http:
        path = f"/api/processes/{process}/events"
        whole = events((await http.get(path)).text)
        assert (output(whole, "stdout"), output(whole, "stderr")) == (b"0123456789", b"abcdef")
        assert whole[-1]["event"] == "exit"
        assert json.loads(whole[-1]["data"])["exit_code"] == 0
        assert whole[-1]["id"] == "10.6"
        later = events((await http.get(path, params={"cursor": "4.2"})).text)
        assert (output(later, "stdout"), output(later, "stderr")) == (b"456789", b"cdef")
        both = await http.get(path, params={"cursor": "4.2"}, headers={"Last-Event-ID": "9.6"})
        assert output(events(both.text), "stdout") == b"9"
        assert output(events(both.text), "stderr") == b""
        for bad in ("x", "1", "1.2.3", "-1.0", "999.0"):
            refused = await http.get(path, params={"cursor": bad})
            assert refused.status_code == 422, bad
            assert refused.json()["success"] is False


async def test_a_task_is_followed_from_its_start(server: Running) -> None:
    """One request after its start tells its newest process and then all that this writes, to the end."""
    project = await server.client.projects.create(CreateProject(name="p", default_agent="SHELL"))
    new = CreateTask(project_id=project.id, description="printf 한글; printf no >&2")
    task = await server.client.tasks.create(new)
    chunks = [chunk async for chunk in server.client.tasks.follow(task.id)]
    written = {c: b"".join(k.data for k in chunks if k.channel == c) for c in ("stdout", "stderr")}
    assert written == {"stdout": "한글".encode(), "stderr": b"no"}
    async with server.http as http:
        told = events((await http.get(f"/api/tasks/{task.id}/events")).text)
        assert [told[0]["event"], told[-1]["event"]] == ["process", "exit"]
        assert json.loads(told[0]["data"])["id"] == json.loads(told[-1]["data"])["id"]
        idle = await server.client.tasks.create(
            CreateTask(project_id=project.id, title="Later", description="true")
        )
        for unknown in (idle.id, project.id):
            refused = await http.get(f"/api/tasks/{unknown}/events")
            assert refused.status_code == 404, unknown


async def test_a_read_waits_for_what_is_to_come(server: Running) -> None:
    """With ``wait`` an empty read returns when something was written, or at the end."""
    process = await start(server, "sleep 0.5; printf late")
    chunk = await server.client.processes.output(process, wait=30)
    assert chunk.data == b"late"
    await server.client.processes.wait(process)
    rest = await server.client.processes.output(process, offset=4, wait=30)
    assert (rest.data, rest.finished, rest.offset, rest.next_offset) == (b"", True, 4, 4)
    part = await server.client.processes.output(process, offset=1, limit=2)
    assert (part.data, part.finished, part.next_offset) == (b"at", False, 3)


async def test_a_killed_process_keeps_what_it_wrote(server: Running) -> None:
    """Stopping ends it; its output and its status stay to be read."""
    process = await start(server, "printf before; sleep 600")
    async with asyncio.timeout(30):
        await server.client.processes.output(process, wait=30)
    await server.client.processes.stop(process)
    ended = await server.client.processes.wait(process)
    assert (ended.status, ended.exit_reason) == ("killed", "killed_by_user")
    assert (await server.client.processes.output(process)).data == b"before"


async def test_event_streams_end_at_a_shutdown_without_an_exit(server: Running) -> None:
    """A stream that is cut says no ``exit``: the client connects again."""
    process = await start(server, "printf x; sleep 600")
    async with server.http as http:
        async with http.stream("GET", f"/api/processes/{process}/events") as response:
            lines = response.aiter_lines()
            async for line in lines:
                if line.startswith("data:"):
                    break
            begin_shutdown(server.app)
            async with asyncio.timeout(30):
                rest = [line async for line in lines]
        assert not any("exit" in line for line in rest)
    await server.services.processes.kill(LOCAL, process)


async def test_a_malformed_output_request_is_refused(server: Running) -> None:
    """Offsets and limits out of range are the caller's error."""
    process = await start(server, "true")
    async with server.http as http:
        path = f"/api/processes/{process}/output"
        for bad in (
            {"offset": -1},
            {"limit": 0},
            {"limit": 10**9},
            {"channel": "stdin"},
            {"wait": "nan"},
            {"offset": 10**30},
        ):
            answer: httpx.Response = await http.get(path, params=bad)
            assert answer.status_code == 400, (bad, answer.text)
            assert answer.json()["error_data"]["code"] == "malformed"
