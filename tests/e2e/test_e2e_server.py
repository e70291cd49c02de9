"""The real server, as its users and its operators meet it."""

import base64
import json
import subprocess
import time
import urllib.error
from collections.abc import Callable
from typing import Any

import pytest
from websockets.sync.client import connect

from anyon.testing.servers import ServerProcess, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def wait_for(what: Callable[[], Any], *, seconds: float = 120) -> Any:
    """Return *what* as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)
    return found


def curl(*arguments: str) -> Any:
    """Return curl's answer, read as JSON."""
    done = subprocess.run(["curl", "-s", *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def over(server: ServerProcess, task: str) -> dict[str, Any] | None:
    """Return the task once nothing of it runs."""
    found = server.call("GET", f"/api/tasks/{task}")
    return None if found["has_in_progress_attempt"] or found["status"] == "todo" else found


def output_of(server: ServerProcess, process: str) -> str:
    """Return all that a process has printed."""
    text, offset = b"", 0
    while True:
        chunk = server.call("GET", f"/api/processes/{process}/output?offset={offset}&limit=1000000")
        data = base64.b64decode(chunk["data"])
        if not data:
            return text.decode()
        text, offset = text + data, chunk["next_offset"]


def test_the_plans_calls_work_verbatim(server: ServerProcess) -> None:
    """The operator's curl calls do what the plan says, and there is one container for two tasks."""
    host = server.address
    made = curl(
        "-X",
        "POST",
        f"{host}/api/projects",
        "-H",
        "Content-Type: application/json",
        "-d",
        '{"name": "test-project", "git_repo_path": ""}',
    )
    project = made["data"]["id"]
    server.call("PUT", f"/api/projects/{project}", {"default_agent": "SHELL"})
    for number in (1, 2):
        body = json.dumps(
            {"project_id": project, "description": f"echo task {number} > {number}.txt"}
        )
        task = curl("-X", "POST", f"{host}/api/tasks", "-d", body)["data"]["id"]
        wait_for(lambda task=task: over(server, task))
    assert [one["id"] for one in curl(f"{host}/api/projects")["data"]] == [project]
    metrics = subprocess.run(
        ["curl", "-s", f"{host}/metrics"], capture_output=True, text=True, check=True
    )
    assert 'anyon_containers_total{status="running"} 1.0' in metrics.stdout


def test_a_server_killed_under_work_loses_nothing(server: ServerProcess) -> None:
    """Kill -9 while processes print: after the next start every line is there once, and exits are right."""
    project = server.call("POST", "/api/projects", {"name": "killed"})["id"]
    script = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; exit 7"
    runs = [
        server.call("POST", f"/api/projects/{project}/exec", {"argv": ["sh", "-c", script]})["id"]
        for _ in range(5)
    ]
    for _ in range(2):
        time.sleep(0.7)  # so that something was printed before each death
        server.kill()
        server.start()
    for run in runs:
        wait_for(
            lambda run=run: server.call("GET", f"/api/execution-processes/{run}")["completed_at"]
        )
        assert output_of(server, run) == "".join(f"line {number}\n" for number in range(400))
        assert server.call("GET", f"/api/execution-processes/{run}")["exit_code"] == 7


def test_a_task_goes_on_through_a_killed_server(server: ServerProcess) -> None:
    """An attempt whose server died is carried on by the next one to its end: committed, in review."""
    project = server.call("POST", "/api/projects", {"name": "chain", "default_agent": "SHELL"})[
        "id"
    ]
    description = "sleep 3; echo done > result.txt"
    task = server.call("POST", "/api/tasks", {"project_id": project, "description": description})[
        "id"
    ]
    server.kill()
    server.start()
    assert wait_for(lambda: over(server, task))["status"] == "inreview"
    (attempt,) = server.call("GET", f"/api/task-attempts?task_id={task}")
    server.call("POST", f"/api/task-attempts/{attempt['id']}/merge")
    assert server.call("GET", f"/api/tasks/{task}")["status"] == "done"


def test_an_idle_project_sleeps_and_wakes_for_real(
    tmp_path_factory: pytest.TempPathFactory, engine: str
) -> None:
    """With short times a project is frozen and stopped under an open page, and woken by a command alone."""
    home = tmp_path_factory.mktemp("sleep") / "home"
    times = {
        "ANYON_FREEZE_AFTER": "1s",
        "ANYON_STOP_AFTER": "4s",
        "ANYON_RECONCILE_INTERVAL": "200ms",
    }
    with serving(home, engine, **times) as server:
        project = server.call("POST", "/api/projects", {"name": "sleepy"})["id"]

        def phase() -> str:
            return str(server.call("GET", f"/api/projects/{project}")["phase"])

        # A page that is open: its stream, and what it looks at again and again.
        stream = f"ws://127.0.0.1:{server.port}/api/tasks/stream/ws?project_id={project}"
        with connect(stream, proxy=None):
            seen = {wait_for(lambda: phase() if phase() in {"frozen", "stopped"} else None)}

            def is_stopped() -> bool:
                for look in ("awake", "events", "branches", "ports", "checkpoints"):
                    server.call("GET", f"/api/projects/{project}/{look}")
                seen.add(phase())
                return "stopped" in seen

            wait_for(is_stopped)
            awake = server.call("GET", f"/api/projects/{project}/awake")
            assert awake["leases"] == []
        reasons = {
            (event["kind"], event["reason"])
            for event in server.call("GET", f"/api/projects/{project}/events")
        }
        assert {("phase.stopping", "idle"), ("phase.stopped", "saved")} <= reasons
        run = server.call("POST", f"/api/projects/{project}/exec", {"argv": ["echo", "awake"]})[
            "id"
        ]
        wait_for(lambda: server.call("GET", f"/api/execution-processes/{run}")["completed_at"])
        assert output_of(server, run) == "awake\n"


BAD_PROJECTS = [
    ({"name": ""}, "name_empty"),
    ({"name": "x" * 1000}, "name_too_long"),
    ({"name": "a\x07b"}, "name_has_control_characters"),
    ({"name": "../etc"}, "name_path_like"),
    ({"name": "gone", "git_repo_path": "/no/such/place"}, "path_missing"),
    ({"name": "plain", "git_repo_path": "/usr/share"}, "not_a_repository"),
    ({"name": "ext", "clone_url": "ext::sh -c id"}, "bad_clone_url"),
    ({"name": "file", "clone_url": "file:///etc"}, "bad_clone_url"),
    ({"name": "option", "clone_url": "--upload-pack=id"}, "bad_clone_url"),
]


def test_bad_projects_leave_nothing(server: ServerProcess) -> None:
    """Each bad input has its own stable code, and neither record, container nor directory stays."""
    for body, code in BAD_PROJECTS:
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.call("POST", "/api/projects", body)
        answer = json.load(refused.value)
        assert 400 <= refused.value.code < 500
        assert answer["error_data"]["code"] == code
        assert answer["message"]
    assert server.call("GET", "/api/projects") == []
    assert list((server.home / "projects").glob("*/*")) == []
