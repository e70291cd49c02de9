"""A project's life on the real engines, through the command line: saved, deleted, brought back, archived."""

import json
import os
import subprocess
import time
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
