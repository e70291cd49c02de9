"""Projects moved onto a real gcsfuse mount and back by the command line, the server killed in the middle."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.test_e2e_migrations import Operator
from tests.mount_fixtures import gcsfuse_program, mounter_or_skip

from anyon.services import fingerprints
from anyon.storage.buckets import Wanted, make_ready
from anyon.testing.gcs_emulator import Emulator, running
from anyon.testing.mount_trials import BUCKET, stored, tidy
from anyon.testing.servers import ServerProcess

PATIENCE = 120.0
FORMER = '# 우리 것\nstorage   = "checkpoints"\n'.encode()
NAMES = ("하나", "two", "thr'ee")


def fill(server: ServerProcess, name: str) -> dict[str, Any]:
    """Make a project with a committed script and a dirty worktree, by the plan's own calls."""
    project = dict(server.call("POST", "/api/projects", {"name": name, "git_repo_path": ""}))
    run(
        server,
        project,
        "printf '#!/bin/sh\\n' >도구; chmod +x 도구; git add -A; git commit -qm x; echo d >dirty",
    )
    return project


def run(server: ServerProcess, project: Mapping[str, Any], script: str) -> None:
    """Run a task to its end, and wait until nothing holds the project."""
    body = {"project_id": project["id"], "description": script}
    task = server.call("POST", "/api/tasks", body)
    end = time.monotonic() + PATIENCE
    while server.call("GET", f"/api/tasks/{task['id']}")["status"] != "inreview":
        assert time.monotonic() < end, "the task is not over"
        time.sleep(0.1)
    while server.call("GET", f"/api/projects/{project['id']}/awake")["leases"]:
        assert time.monotonic() < end, "the project is held"
        time.sleep(0.1)


def own_files(place: Path) -> fingerprints.Fingerprint:
    """Return what of a project is somebody's work, and not where it lies."""
    found = dict(fingerprints.work(fingerprints.fingerprint(place)))
    found.pop(b".git/config", None)
    return found


def in_bucket(emulator: Emulator, project: str, place: Path) -> None:
    """Compare every file with the object that the bucket's own service has of it."""
    user = place.parent.name
    for path in sorted(place.rglob("*")):
        if path.is_file() and not path.is_symlink():
            name = f"{user}/{project}/{path.relative_to(place)}"
            assert stored(emulator.url, BUCKET, name) == path.read_bytes(), name


def moved(operator: Operator, *words: str) -> None:
    """Move until all are there: a project that something holds just now is refused, and a repeat takes it."""
    end = time.monotonic() + PATIENCE
    while True:
        done = operator.tried("migrate", *words)
        states = [(one["state"], one["why"]) for one in done["projects"]]
        if {state for state, _ in states} <= {"moved", "there"}:
            return
        assert all("[project_busy]" in why for state, why in states if state == "failed"), states
        assert time.monotonic() < end, states
        time.sleep(1)


@pytest.mark.timeout(600)
def test_there_killed_in_the_middle_rolled_back_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill loses nothing, a repeat finishes, the bucket has every byte; the way back refuses what would lose work."""
    mounter_or_skip("gcsfuse")
    home = tmp_path / "home"
    place = home / "projects-gcs"
    program = Path(gcsfuse_program())
    if program.is_absolute():
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with running() as emulator:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
        make_ready(Wanted(name=BUCKET, location="asia-northeast3", project=None))
        settings = {"ANYON_STORE": "none", "ANYON_DEFAULT_AGENT": "SHELL"}
        server = ServerProcess(home, "bubblewrap", settings)
        operator = Operator(home, ANYON_PORT=str(server.port))
        try:
            server.start()
            projects = [fill(server, name) for name in NAMES]
            before = {
                one["id"]: own_files(next(home.glob(f"projects/*/{one['id']}"))) for one in projects
            }
            server.stop()
            (home / "storage.toml").write_bytes(FORMER)
            operator.run("mount", "use", "gcsfuse", "--bucket", f"gs://{BUCKET}")
            mount_setting = (home / "storage.toml").read_bytes()
            server.start()
            operator.killed_with(server, f"[1/{len(NAMES)}]", "migrate", "to-mount")
            server.start()
            moved(operator, "to-mount")
            for one in projects:
                there = next(place.glob(f"*/{one['id']}"))
                assert own_files(there) == before[one["id"]]
                in_bucket(emulator, one["id"], there)
                assert (
                    own_files(next(home.glob(f"projects-backup/*/{one['id']}")))
                    == before[one["id"]]
                )
            assert (home / "projects").is_symlink()
            run(server, projects[0], "echo more >more")
            refusal = operator.run("rollback", code=5)  # the server has the home
            assert refusal["error"]["code"] == "home_in_use"
            server.stop()
            refusal = operator.run("rollback", code=5)
            assert refusal["error"]["code"] == "work_since"
            assert NAMES[0] in refusal["error"]["message"]
            assert NAMES[1] not in refusal["error"]["message"]
            server.start()
            moved(operator, "to-checkpoints", "--project", NAMES[0])
            server.stop()
            report = operator.run("rollback")
            assert sorted(report["answer"]) == sorted(NAMES)
            assert {one["state"] for one in report["projects"]} == {"restored"}
            assert not (home / "projects").is_symlink()
            assert (home / "storage.toml").read_bytes() == FORMER
            assert (home / "storage.toml.rolled-back").read_bytes() == mount_setting
            assert not os.path.ismount(place)
            for one in projects:
                back = next(home.glob(f"projects/*/{one['id']}"))
                assert os.access(next(back.glob(".worktrees/*/도구")), os.X_OK)
                if one is not projects[0]:
                    assert own_files(back) == before[one["id"]]
            assert list(home.glob(f"projects/*/{projects[0]['id']}/.worktrees/*/more"))
            server.start()
            run(server, projects[1], "./.worktrees/*/도구 || true; git status --short")
            server.remove_projects()
        finally:
            server.stop()
            emulator.send(signal.SIGCONT)
            tidy(place)
            subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)
