"""A project's life on the real engines, through the command line: saved, deleted, brought back, archived."""

import base64
import json
import os
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from anyon.testing.servers import ANYON, ServerProcess, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def anyon(server: ServerProcess, *arguments: str) -> str:
    """Run one command and return what it printed; it must succeed."""
    env = os.environ | {"ANYON_SERVER": server.address}
    done = subprocess.run(
        [ANYON, *arguments], env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def data(server: ServerProcess, *arguments: str) -> Any:
    """Return what a command says with ``--json``."""
    return json.loads(anyon(server, *arguments, "--json"))


def wait_for_phase(server: ServerProcess, project: str, phase: str) -> None:
    """Wait until the project is in *phase*."""
    deadline = time.monotonic() + 120
    while (seen := data(server, "project", "why", project)["phase"]) != phase:
        assert time.monotonic() < deadline, f"still {seen}, not {phase}"
        time.sleep(0.2)


def test_a_project_is_saved_deleted_and_brought_back(server: ServerProcess) -> None:
    """What was in the workspace and at home before the deletion is there after it was undone."""
    anyon(server, "project", "create", "precious", "--agent", "shell")
    anyon(server, "exec", "precious", "--", "sh", "-c", "echo work > file; echo note > ~/note")
    saved = data(server, "checkpoint", "save", "precious")
    assert saved["files"] > 0
    anyon(server, "project", "delete", "precious", "--yes")
    assert data(server, "project", "list") == []
    assert [one["name"] for one in data(server, "project", "deleted")] == ["precious"]
    anyon(server, "project", "restore", "precious")
    found = anyon(
        server, "exec", "precious", "--", "sh", "-c", "cat file ~/note; git status --short"
    )
    assert found.startswith("work\nnote\n")
    kinds = [event["kind"] for event in data(server, "project", "events", "precious")]
    assert {"project.created", "checkpoint.saved", "project.deleted", "project.undeleted"} <= set(
        kinds
    )


def test_a_stop_by_name_tells_kills_and_saves(tmp_path: Path, engine: str) -> None:
    """On the real server: refused under work, forced with TERM, grace and KILL; unsaved while the store is away."""
    settings = {"ANYON_STOP_GRACE": "2s", "ANYON_RECONCILE_INTERVAL": "200ms"}
    home = tmp_path / "home"
    with serving(home, engine, **settings) as server:
        made = data(server, "project", "create", "busy")
        obeys = (
            "trap 'echo last words | tee last; exit 0' TERM; echo on; while :; do sleep 0.1; done"
        )
        ignores = "trap '' TERM; echo on; while :; do sleep 0.1; done"
        path = f"/api/projects/{made['id']}/exec"
        runs = [
            server.call("POST", path, {"argv": ["sh", "-c", script]})["id"]
            for script in (obeys, ignores)
        ]
        for run in runs:
            wait_for_output(server, run, "on\n")
        refused = tried(server, "project", "stop", "busy", "--json")
        assert refused.returncode == 5
        assert json.loads(refused.stderr)["error"]["code"] == "project_busy"
        data(server, "checkpoint", "save", "busy")
        heads = [path for path in (home / "store").rglob("head=") if f"{made['id']}+" in path.parts]
        whole = {path: path.read_bytes() for path in heads}
        assert whole
        for path in whole:
            path.write_bytes(b"damaged")  # as long as it is, nothing can be confirmed
        began = time.monotonic()
        stopped = data(server, "project", "stop", "busy", "--force")
        assert time.monotonic() - began >= 2, "the one that ignores TERM had no grace"
        assert (stopped["goal"], stopped["phase"]) == ("stopped", "stopped_unsaved")
        wait_for_metric(server, 'anyon_projects{phase="stopped_unsaved"}', 1)
        assert (Path(made["git_repo_path"]) / "last").read_text() == "last words\n"
        failures = len(failed(server, made["id"]))
        deadline = time.monotonic() + 60
        while (
            len(failed(server, made["id"])) == failures
        ):  # it is tried again, and again it is told
            assert time.monotonic() < deadline, "it is not tried again"
            time.sleep(0.2)
        awake = server.call("GET", f"/api/projects/{made['id']}/awake")
        assert awake["phase"] == "stopped_unsaved"
        for path, content in whole.items():
            path.write_bytes(content)
        wait_for_phase(server, "busy", "stopped")
        wait_for_metric(server, 'anyon_projects{phase="stopped_unsaved"}', 0)
        wait_for_output(server, runs[0], "on\nlast words\n")
        exits = [server.call("GET", f"/api/execution-processes/{run}") for run in runs]
        assert [one["status"] for one in exits] == ["killed", "killed"]
        kinds = [(e["kind"], e["reason"]) for e in data(server, "project", "events", "busy")]
        assert ("goal.stopped", "forced") in kinds
        last = kinds.index(("phase.stopped", "saved"))
        assert ("checkpoint.saved", "stop") in kinds[:last], "it was called stopped unsaved"
        assert anyon(server, "exec", "busy", "--", "cat", "last") == "last words\n"
        assert "is stopped" in anyon(server, "project", "stop", "busy")
        assert data(server, "project", "start", "busy")["phase"] == "running"


def failed(server: ServerProcess, project: str) -> list[Any]:
    """Return the events of saves that failed."""
    events = server.call("GET", f"/api/projects/{project}/events")
    return [event for event in events if event["kind"] == "save.failed"]


def tried(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command that may fail."""
    env = os.environ | {"ANYON_SERVER": server.address}
    return subprocess.run(
        [ANYON, *arguments], env=env, capture_output=True, text=True, check=False, timeout=120
    )


def metric(server: ServerProcess, series: str) -> float:
    """Return a series' value as a scrape shows it now; a missing one is 0."""
    with urllib.request.urlopen(f"{server.address}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(series)), 0.0)


def wait_for_metric(server: ServerProcess, series: str, value: float) -> None:
    """Wait until a series has a value; projects are counted now and then."""
    deadline = time.monotonic() + 60
    while (seen := metric(server, series)) != value:
        assert time.monotonic() < deadline, f"{series} is {seen}, not {value}"
        time.sleep(0.2)


def wait_for_output(server: ServerProcess, process: str, text: str) -> None:
    """Wait until a process has printed this."""
    deadline = time.monotonic() + 60
    path = f"/api/processes/{process}/output?offset=0"
    while (seen := base64.b64decode(server.call("GET", path)["data"]).decode()) != text:
        assert time.monotonic() < deadline, f"it printed {seen!r}, not {text!r}"
        time.sleep(0.05)


def test_an_archived_project_has_what_was_installed(tmp_path: Path, engine: str) -> None:
    """Also what was installed outside the project comes back from the store."""
    times = {
        "ANYON_FREEZE_AFTER": "0",
        "ANYON_STOP_AFTER": "1s",
        "ANYON_ARCHIVE_AFTER": "2s",
        "ANYON_RECONCILE_INTERVAL": "200ms",
        "ANYON_CONTAINER_UID": "0",
    }
    with serving(tmp_path / "home", engine, **times) as server:
        made = data(server, "project", "create", "sleepy")
        install = "printf '#!/bin/sh\\necho installed\\n' > /usr/local/bin/tool; chmod 755 /usr/local/bin/tool"
        anyon(server, "exec", "sleepy", "--", "sh", "-c", install)
        wait_for_phase(server, "sleepy", "archived")
        assert not Path(made["git_repo_path"]).exists()
        assert anyon(server, "exec", "sleepy", "--", "tool") == "installed\n"
