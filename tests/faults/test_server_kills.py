"""Tasks run on while their server is killed again and again: no process is lost, no line lost or doubled."""

import base64
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.docker_fixtures import socket_or_skip

from anyon.testing.servers import ServerProcess, serving

FULL = bool(os.environ.get("ANYON_KILLS"))
PROJECTS, TASKS, KILLS = (5, 50, 20) if FULL else (2, 10, 4)
PATIENCE = 300.0
LINES = """i=0
until [ -e /workspace/enough ]; do i=$((i+1)); echo "line $i"; sleep 0.5; done
echo "over after $i"
"""
SETTINGS = {
    "ANYON_DEFAULT_AGENT": "SHELL",
    "ANYON_RECONCILE_INTERVAL": "500ms",
    # Idle times far shorter than the test: what holds a project awake must hold over each death.
    "ANYON_FREEZE_AFTER": "1s",
    "ANYON_STOP_AFTER": "2s",
    "ANYON_CHECKPOINT_INTERVAL": "2s",
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 if FULL else 900)]


@dataclass
class Reader:
    """A client that reads one task's output by its offset, over all lives of the server."""

    attempt: str
    process: str = ""
    text: bytes = b""
    is_over: bool = False

    def read(self, server: ServerProcess, wait: int = 0) -> None:
        """Read on from where it was."""
        if not self.process:
            path = f"/api/execution-processes?task_attempt_id={self.attempt}"
            (only,) = server.call("GET", path)
            self.process = only["id"]
        path = f"/api/processes/{self.process}/output?offset={len(self.text)}&wait={wait}"
        chunk = server.call("GET", path)
        assert chunk["offset"] == len(self.text)
        self.text += base64.b64decode(chunk["data"])
        self.is_over = chunk["finished"]


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until *holds*."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s for {what}"
        time.sleep(0.2)


def started(server: ServerProcess, project: str, number: int) -> Reader:
    """Start a task that prints until it is told to end."""
    task = {"project_id": project, "title": f"Task {number}", "description": LINES}
    made = server.call("POST", "/api/tasks/create-and-start", {"task": task})
    (attempt,) = server.call("GET", f"/api/task-attempts?task_id={made['id']}")
    return Reader(attempt["id"])


def check(server: ServerProcess, reader: Reader) -> int:
    """See that there is each line once, for who read on and for who reads anew; return how many."""
    while not reader.is_over:
        reader.read(server, wait=30)
    again = Reader(reader.attempt)
    while not again.is_over:
        again.read(server, wait=30)
    assert again.text == reader.text
    *lines, last = reader.text.decode().splitlines()
    assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]
    assert last == f"over after {len(lines)}"
    process: dict[str, Any] = server.call("GET", f"/api/execution-processes/{reader.process}")
    assert (process["status"], process["exit_code"]) == ("completed", 0)
    return len(lines)


@pytest.mark.parametrize("engine", ["bubblewrap", "docker"])
def test_tasks_do_not_notice_that_their_server_is_killed(tmp_path: Path, engine: str) -> None:
    """Each task's process lives through every death, and each of its lines is read once, in order."""
    if engine == "docker":
        socket_or_skip()
    chance = random.Random(4)
    with serving(tmp_path / "home", engine, **SETTINGS) as server:
        projects = [
            server.call("POST", "/api/projects", {"name": f"p{number}"})
            for number in range(PROJECTS)
        ]
        readers = [
            started(server, projects[number % PROJECTS]["id"], number) for number in range(TASKS)
        ]
        for _ in range(KILLS):
            for reader in chance.sample(readers, len(readers) // 3):
                reader.read(server)
            time.sleep(chance.uniform(0.0, 2.0))  # the moment of a death is anyone's
            server.kill()
            server.start()
        for project in projects:
            (Path(project["git_repo_path"]) / "enough").touch()
        lines = sum(check(server, reader) for reader in readers)

        def is_quiet() -> bool:
            tasks = [
                t for p in projects for t in server.call("GET", f"/api/tasks?project_id={p['id']}")
            ]
            assert len(tasks) == TASKS
            return {task["status"] for task in tasks} == {"inreview"}

        until(is_quiet, "every task to be in review")
    print(f"{engine}: {TASKS} tasks, {KILLS} kills, {lines} lines, each once")
