"""An old installation of twenty projects brought in by the command line, killed at three points, taken back each time."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from anyon.testing.old_installations import OldInstallation, snapshot
from anyon.testing.servers import ANYON, ServerProcess

NAMES = (
    *("한국어 프로젝트", "a b'c\"d", "ünïcödé", "-dash", "semi;colon", "$HOME", "back`tick`"),
    *("UPPER", "upper", "dots...", "emoji 🐙", "tab\\t", "%s%n", "프로젝트-2", "a" * 60),
    *("plus+", "hash#", "broken", "and&or", "last"),
)
BROKEN = "broken"
PNG = b"\x89PNG\r\n\x1a\n"
PATIENCE = 120.0


def old_installation(root: Path) -> OldInstallation:
    """Return one of twenty projects: odd names, dirty worktrees, one that git cannot read."""
    old = OldInstallation(root)
    for number, name in enumerate(NAMES):
        place = old.project(name, f"project-{number}")
        old.task(f"task {number}", name)
        if number % 3 == 0:
            worktree = old.attempt(f"attempt-{number}", f"task {number}", place, f"work/{number}")
            (worktree / "work.txt").write_text("dirty\n")
            (worktree / "새 파일").write_text("untracked\n")
        if name == BROKEN:
            for path in sorted((place / ".git/objects").glob("??/*"))[:2]:
                path.chmod(0o644)
                path.write_bytes(b"damaged")
    old.tag("한글 태그", "여러 줄\n글")
    old.image("화면.png", PNG + b"shared", "task 0", "task 1")
    old.image("wrong hash.png", PNG, "task 0").write_bytes(PNG + b"another")
    old.image("missing.png", PNG + b"missing", "task 1").unlink()
    return old


class Operator:
    """Types ``anyon`` over one home."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.env = os.environ | {"ANYON_HOME": str(home), "ANYON_ENGINE": "bubblewrap"}
        self.env |= {"ANYON_STORE": "none", **settings}
        self.code = 0

    def run(self, *words: str, code: int = 0) -> Mapping[str, Any]:
        """Run a command to its end and return its JSON."""
        found = self.tried(*words)
        assert self.code == code, (words, found)
        return found

    def tried(self, *words: str) -> Mapping[str, Any]:
        """Run a command to its end, whatever that is (``code``), and return its JSON."""
        done = subprocess.run(
            [str(ANYON), *words, "--json"],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        self.code = done.returncode
        found: Mapping[str, Any] = json.loads(done.stdout or done.stderr)
        return found

    def killed_with(self, server: ServerProcess, line: str, *words: str) -> None:
        """Run a command, and kill the server that it asks once it has said *line*."""
        process = self._said(line, *words)
        server.kill()
        process.wait(PATIENCE)
        assert process.returncode != 0
        assert process.stderr is not None
        process.stderr.close()

    def killed_at(self, line: str, *words: str) -> None:
        """Run a command and kill it, with all that it started, once it has said *line*."""
        process = self._said(line, *words)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()

    def _said(self, line: str, *words: str) -> "subprocess.Popen[bytes]":
        """Start a command and return once it has said *line*."""
        process = subprocess.Popen(
            [str(ANYON), *words], env=self.env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        assert process.stderr is not None
        for said in process.stderr:
            if said.decode().startswith(line):
                break
        else:
            raise AssertionError(f"it never said {line}")
        time.sleep(0.2)  # into the middle of that project, wherever that is
        return process


@pytest.mark.timeout(600)
def test_twenty_projects_killed_three_times_and_taken_back(tmp_path: Path) -> None:
    """After each kill the way back leaves nothing, the source is as it was, and the whole comes in at last."""
    old = old_installation(tmp_path / "old")
    before = snapshot(old.root)
    home = tmp_path / "home"
    operator = Operator(home)
    migrate = ("migrate", "from-layout", "--from", str(old.root))
    for point in (1, 4, 6):
        operator.killed_at(f"[{point}/{len(NAMES)}]", *migrate)
        report = operator.tried("rollback")
        if operator.code == 4:  # killed before one was whole: what was begun is taken back anyway
            assert report["error"]["code"] == "nothing_to_undo"
        else:
            assert report["answer"] == []
            assert all(one["state"] == "removed" for one in report["projects"])
        assert not list((home / "projects").glob("*/*"))
        assert snapshot(old.root) == before
    operator.killed_at(f"[2/{len(NAMES)}]", *migrate)
    report = operator.run(*migrate, code=1)  # goes on where it was cut off; the broken one fails
    states = {one["name"]: one["state"] for one in report["projects"]}
    assert states.pop(BROKEN) == "failed"
    assert set(states.values()) <= {"migrated", "there"}
    assert sum(one["worktrees"] for one in report["projects"]) >= 6
    assert [words.split("(")[0] for words in report["lost"]] == [
        "image 'wrong hash.png' ",
        "image 'missing.png' ",
    ]
    assert snapshot(old.root) == before
    server = ServerProcess(
        home, "bubblewrap", {"ANYON_STORE": "none", "ANYON_DEFAULT_AGENT": "SHELL"}
    )
    server.start()
    try:
        projects = server.call("GET", "/api/projects")
        assert len(projects) == len(NAMES) - 1
        assert [one["tag_name"] for one in server.call("GET", "/api/tags")] == ["한글 태그"]
        shared = [
            server.call("GET", f"/api/images/task/{old.ids[key]}") for key in ("task 0", "task 1")
        ]
        assert [one["original_name"] for one in shared[0]] == ["화면.png"]
        assert shared[0] == shared[1]
        body = {"project_id": projects[0]["id"], "description": "echo new >new.txt"}
        task = server.call("POST", "/api/tasks", body)
        end = time.monotonic() + PATIENCE
        while server.call("GET", f"/api/tasks/{task['id']}")["status"] != "inreview":
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        server.stop()
    refusal = operator.run("rollback", code=5)
    assert refusal["error"]["code"] == "work_since"
    assert repr(projects[0]["name"]) in refusal["error"]["message"]
    assert "1 task since" in refusal["error"]["message"]
    would = operator.run("rollback", "--dry-run")
    assert [one["project"] for one in would["lost"]] == [projects[0]["id"]]
    done = operator.run("rollback", "--discard-work")
    assert done["answer"] == []
    assert snapshot(old.root) == before
    nothing = operator.run("rollback", code=4)
    assert nothing["error"]["code"] == "nothing_to_undo"
