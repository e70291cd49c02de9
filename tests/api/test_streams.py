"""The WebSocket streams, over real sockets: a snapshot, every change, and the right end."""

import asyncio
import json
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.api.conftest import Running, running
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from anyon.api.apps import begin_shutdown
from anyon.config import Settings
from anyon.sdk.models import ExecutorProfileId
from anyon.sdk.requests import CreateAndStartTask, CreateProject, CreateTask, Exec
from anyon.services.feed import Change, Kind

UNKNOWN = "00000000-0000-4000-8000-00000000dead"


@asynccontextmanager
async def stream(server: Running, path: str):
    """Open a stream."""
    address = f"ws{server.base_url.removeprefix('http')}/api{path}"
    async with connect(address, proxy=None, max_size=None) as websocket:
        yield websocket


class Document:
    """A client's state, patched as the front end does: an operation on a missing path is dropped."""

    def __init__(self, websocket: ClientConnection, state: Any) -> None:
        self._websocket = websocket
        self.state = state
        self.finished = False
        self.operations: list[dict[str, Any]] = []

    async def until(self, holds: Callable[[Any], bool]) -> Any:
        """Apply frames until the state is as wanted."""
        async with asyncio.timeout(60):
            while not holds(self.state):
                await self.step()
        return self.state

    async def end(self) -> tuple[Any, int | None]:
        """Apply frames to the end; return the state and the close code."""
        async with asyncio.timeout(60):
            while True:
                try:
                    await self.step()
                except ConnectionClosed:
                    return self.state, self._websocket.close_code

    async def step(self) -> None:
        """Apply one frame."""
        frame = json.loads(await self._websocket.recv())
        if frame == {"finished": True}:
            self.finished = True
            return
        assert list(frame) == ["JsonPatch"]
        paths = [op["path"] for op in frame["JsonPatch"]]
        assert len(paths) == len(set(paths))
        for op in frame["JsonPatch"]:
            self.operations.append(op)
            self._apply(op)

    def _apply(self, op: dict[str, Any]) -> None:
        *parents, last = [
            part.replace("~1", "/").replace("~0", "~") for part in op["path"].split("/")[1:]
        ]
        place = self.state
        for part in parents:
            place = place[int(part) if isinstance(place, list) else part]
        if isinstance(place, list):
            index = int(last)
            assert index == len(place) if op["op"] == "add" else index < len(place)
            place[index : index + 1] = [op["value"]]
        elif op["op"] == "remove":
            del place[last]
        else:
            assert op["op"] == "add" or last in place
            place[last] = op["value"]


async def test_a_new_task_is_on_the_wire_before_the_answer(server: Running) -> None:
    """S1: the client that made a task finds it in its stream at once, every time."""
    project = await server.client.projects.create(CreateProject(name="p"))
    async with stream(server, f"/tasks/stream/ws?project_id={project.id}") as websocket:
        document = Document(websocket, {"tasks": {}})
        await document.step()
        assert document.state == {"tasks": {}}
        for number in range(10):
            new = CreateTask(project_id=project.id, title=f"t{number}", description="")
            made = await server.client.tasks.create(new)
            [board] = server.app.state.context.boards.of(str(project.id))
            assert str(made.id) in board.shown  # it was sent when the answer came
            await document.until(lambda state, task=str(made.id): task in state["tasks"])
        await server.client.tasks.delete(made.id)
        await document.until(lambda state: str(made.id) not in state["tasks"])
        assert len(document.state["tasks"]) == 9


async def test_a_run_is_seen_on_all_streams(server: Running) -> None:
    """S1, S2, S3, S4 and S6 tell one task's run, from its start to its end."""
    client = server.client
    project = await client.projects.create(CreateProject(name="p"))
    new = CreateTask(
        project_id=project.id, title="t", description="say hi\nwrite a/b.txt text\nsleep 1"
    )
    profile = ExecutorProfileId(executor="SCRIPTED")
    async with stream(server, f"/tasks/stream/ws?project_id={project.id}") as tasks:
        board = Document(tasks, {"tasks": {}})
        task = await client.tasks.create_and_start(
            CreateAndStartTask(task=new, executor_profile_id=profile)
        )
        [attempt] = await client.attempts.list(task.id)
        path = f"/execution-processes/stream/ws?task_attempt_id={attempt.id}&show_soft_deleted=true"
        async with (
            stream(server, path) as processes,
            stream(server, f"/drafts/stream/ws?project_id={project.id}") as drafts,
            stream(server, f"/task-attempts/{attempt.id}/diff/ws") as diff,
        ):
            runs = Document(processes, {"execution_processes": {}})
            state = await runs.until(lambda state: state["execution_processes"])
            [process] = state["execution_processes"]
            typed = Document(drafts, {"drafts": {}})
            await typed.until(lambda state: str(attempt.id) in state["drafts"])
            assert typed.state["drafts"][str(attempt.id)]["retry"] is None
            assert typed.state["drafts"][str(attempt.id)]["follow_up"]["version"] == 0
            async with server.http as http:
                saved = await http.put(
                    f"/api/task-attempts/{attempt.id}/draft?type=follow_up", json={"prompt": "x"}
                )
            assert saved.json()["data"]["version"] == 1
            await typed.until(lambda s: s["drafts"][str(attempt.id)]["follow_up"]["prompt"] == "x")
            async with stream(
                server, f"/execution-processes/{process}/normalized-logs/ws"
            ) as conversation:
                said = Document(conversation, {"entries": []})
                entries, code = await said.end()
                assert said.finished
                assert code == 1000
            assert {entry["type"] for entry in entries["entries"]} == {"NORMALIZED_ENTRY"}
            assert any(entry["content"]["content"] == "hi" for entry in entries["entries"])
            await runs.until(lambda s: s["execution_processes"][process]["status"] == "completed")
            changes = Document(diff, {"entries": {}})
            shown = await changes.until(lambda state: "a/b.txt" in state["entries"])
            assert shown["entries"]["a/b.txt"]["content"]["newContent"] == "text\n"
        await board.until(lambda s: s["tasks"].get(str(task.id), {}).get("status") == "inreview")
    await client.attempts.merge(attempt.id)
    async with stream(server, f"/task-attempts/{attempt.id}/diff/ws?stats_only=true") as diff:
        changes = Document(diff, {"entries": {}})
        state, code = await changes.end()
        assert (changes.finished, code) == (True, 1000)
        assert state["entries"]["a/b.txt"]["content"]["contentOmitted"] is True


async def test_raw_output_never_splits_a_syllable_and_ends(server: Running) -> None:
    """S5: the texts of both channels, in order, bytes that are no UTF-8 replaced, then finished."""
    client = server.client
    project = await client.projects.create(CreateProject(name="p"))
    script = r"printf '\355\225'; sleep 0.3; printf '\234\377'; printf err >&2"
    process = await client.projects.exec(project.id, Exec(argv=["sh", "-c", script]))
    async with stream(server, f"/execution-processes/{process.id}/raw-logs/ws") as websocket:
        document = Document(websocket, {"entries": []})
        state, code = await document.end()
    texts = {"STDOUT": "", "STDERR": ""}
    for entry in state["entries"]:
        texts[entry["type"]] += entry["content"]
    assert texts == {"STDOUT": "한\ufffd", "STDERR": "err"}
    assert (document.finished, code) == (True, 1000)


async def test_a_shutdown_says_come_again(server: Running) -> None:
    """At the beginning of a shutdown every stream is closed with 1012, never with 1000."""
    project = await server.client.projects.create(CreateProject(name="p"))
    process = await server.client.projects.exec(project.id, Exec(argv=["sleep", "60"]))
    async with (
        stream(server, f"/tasks/stream/ws?project_id={project.id}") as tasks,
        stream(server, f"/execution-processes/{process.id}/raw-logs/ws") as output,
    ):
        await tasks.recv()
        begin_shutdown(server.app)
        for websocket in (tasks, output):
            async with asyncio.timeout(30):
                await websocket.wait_closed()
            assert websocket.close_code == 1012
    await server.client.processes.stop(process.id)


async def test_clients_that_leave_just_then_do_not_break_a_shutdown(settings: Settings) -> None:
    """Sockets at every stage of their own closing are let finish, and the server ends in order."""
    leaving = []
    async with running(settings) as server:
        project = await server.client.projects.create(CreateProject(name="p"))
        address = f"ws{server.base_url.removeprefix('http')}/api/tasks/stream/ws"
        for _ in range(20):
            websocket = await connect(f"{address}?project_id={project.id}", proxy=None)
            await websocket.recv()
            leaving.append(asyncio.create_task(websocket.close()))
            await asyncio.sleep(0)
    # The block's end has waited for the server's own.
    async with asyncio.timeout(30):
        await asyncio.gather(*leaving)


async def test_a_reader_that_falls_behind_is_told_to_come_again(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Notices that were lost end the stream with 1011, so that the client looks at all anew."""
    project = await server.client.projects.create(CreateProject(name="p"))
    async with stream(server, f"/tasks/stream/ws?project_id={project.id}") as websocket:
        await websocket.recv()
        for number in range(20_000):  # more than a subscription holds, before it can read one
            change = Change(kind=Kind.TASK, id=str(number), project_id=str(project.id))
            server.services.feed.publish(change)
        async with asyncio.timeout(60):
            await websocket.wait_closed()
        assert websocket.close_code == 1011


@pytest.mark.parametrize(
    "path",
    [
        f"/tasks/stream/ws?project_id={UNKNOWN}",
        f"/drafts/stream/ws?project_id={UNKNOWN}",
        f"/execution-processes/stream/ws?task_attempt_id={UNKNOWN}",
        f"/execution-processes/{UNKNOWN}/raw-logs/ws",
        f"/execution-processes/{UNKNOWN}/normalized-logs/ws",
        f"/task-attempts/{UNKNOWN}/diff/ws",
        f"/projects/{UNKNOWN}/terminal",
        "/tasks/stream/ws?project_id=nonsense",
        "/tasks/stream/ws",
    ],
)
async def test_a_stream_of_an_unknown_thing_is_not_opened(server: Running, path: str) -> None:
    """The opening itself is refused, with the envelope."""
    with pytest.raises(InvalidStatus) as caught:
        async with stream(server, path):
            pass
    response = caught.value.response
    assert response.status_code == (404 if UNKNOWN in path else 400)
    assert json.loads(bytes(response.body))["success"] is False
