"""Projects on a real gcsfuse mount over an emulator, by a real server: the plan's own test commands, and bad days."""

import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.cloud import storage
from tests.mount_fixtures import gcsfuse_program, mounter_or_skip

from anyon.storage.buckets import Wanted, make_ready
from anyon.testing.gcs_emulator import Emulator, running
from anyon.testing.mount_trials import BUCKET, kill_server, stored, tidy
from anyon.testing.servers import ServerProcess, serving

pytestmark = pytest.mark.timeout(400)
PATIENCE = 90.0
# The plan's minute; shorter where time is counted.
SILENCE = float(os.environ.get("ANYON_TEST_SILENCE", "6"))


@dataclass(frozen=True, slots=True)
class Site:
    """A server whose new projects lie on a mounted bucket."""

    server: ServerProcess
    emulator: Emulator
    place: Path

    def stored(self, name: str) -> bytes | None:
        """Return an object as the storage client has it."""
        return stored(self.emulator.url, BUCKET, name)

    def listed(self, prefix: str) -> list[str]:
        """Return the names of the objects below *prefix*, as ``gsutil ls`` shows them."""
        client = storage.Client.create_anonymous_client()
        return [blob.name for blob in client.list_blobs(BUCKET, prefix=prefix)]

    def contents(self, ending: str) -> list[bytes | None]:
        """Return what the objects hold whose names have that ending."""
        return [self.stored(name) for name in self.listed("") if name.endswith(ending)]

    def project(self, name: str) -> dict[str, Any]:
        """Create a project by the plan's own call."""
        body = {"name": name, "git_repo_path": ""}
        return dict(self.server.call("POST", "/api/projects", body))

    def task(self, project: dict[str, Any], script: str) -> dict[str, Any]:
        """Make and start a task by the plan's own call; return it."""
        body = {"project_id": project["id"], "description": script}
        return dict(self.server.call("POST", "/api/tasks", body))

    def status(self, task: dict[str, Any]) -> str:
        """Return a task's status."""
        return str(self.server.call("GET", f"/api/tasks/{task['id']}")["status"])

    def events(self, project: dict[str, Any]) -> list[str]:
        """Return the kinds of what happened to a project."""
        found = self.server.call("GET", f"/api/projects/{project['id']}/events")
        return [event["kind"] for event in found]


def until(holds: Callable[[], bool], words: str) -> None:
    """Wait until *holds* says so; refusals meanwhile are part of a bad day."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(urllib.error.URLError, OSError):
            if holds():
                return
        time.sleep(0.1)
    raise AssertionError(f"in vain: {words}")


@pytest.fixture
def site(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A real server on a real mount, the bucket made by ``anyon gcs init``'s own use case."""
    mounter_or_skip("gcsfuse")
    with running() as emulator:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
        program = Path(gcsfuse_program())
        if program.is_absolute():
            monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        make_ready(Wanted(name=BUCKET, location="asia-northeast3", project=None))
        settings = {
            "ANYON_STORAGE": "gcsfuse",
            "ANYON_MOUNT_BUCKET": f"gs://{BUCKET}",
            "ANYON_MOUNT_INTERVAL": "1s",
            "ANYON_DEFAULT_AGENT": "SHELL",
            "ANYON_STORE": "none",
        }
        home = tmp_path / "home"
        try:
            with serving(home, engine, **settings) as server:
                yield Site(server, emulator, home / "projects-gcs")
        finally:
            emulator.send(signal.SIGCONT)
            tidy(home / "projects-gcs")


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_the_plans_own_commands(site: Site) -> None:
    """Written through the mount, read by the client; a project by the API is listed; worktrees too; 100 MB."""
    (site.place / "test.txt").write_text("hello\n")
    assert site.stored("test.txt") == b"hello\n"
    project = site.project("test-project")
    names = site.listed("")
    assert any(project["id"] in name and name.endswith(".git/HEAD") for name in names)
    ignored = next(site.place.glob(f"*/{project['id']}/.gitignore"))
    assert ".worktrees/" in ignored.read_text()
    task = site.task(project, "echo one >new.txt && git add -A && git commit -qm one && git log")
    until(lambda: site.status(task) == "inreview", "the task is in review")
    names = site.listed("")
    assert any("/.worktrees/" in name and name.endswith("/new.txt") for name in names)
    assert any("/.git/worktrees/" in name for name in names)
    began = time.monotonic()
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={site.place}/testfile", "bs=1M", "count=100", "status=none"],
        check=True,
        timeout=PATIENCE,
    )
    print(f"dd of 100 MB took {time.monotonic() - began:.1f} s")
    assert (site.place / "testfile").stat().st_size == 100 * 2**20
    assert "testfile" in site.listed("testfile")


def test_the_mount_is_killed_while_a_task_runs(site: Site) -> None:
    """The mount comes back, the container restarts on it, nothing that was closed is lost, work goes on."""
    project = site.project("test-project")
    task = site.task(project, "echo one >one.txt; echo begun; sleep 600")
    # Its content, not its name: a shell's redirection closes a copy of the empty file first.
    until(lambda: b"one\n" in site.contents("/one.txt"), "the task has written")
    kill_server(site.place)
    until(lambda: "mount.alive" in site.events(project), "the mount was mended")
    until(lambda: site.status(task) != "inprogress", "the task's end was noticed")
    kept = list(site.place.glob(f"*/{project['id']}/.worktrees/*/one.txt"))
    assert [path.read_text() for path in kept] == ["one\n"]
    again = site.task(project, "cat /proc/self/mounts | grep workspace; echo two >two.txt")
    until(lambda: site.status(again) == "inreview", "work goes on")
    assert any("/two.txt" in name for name in site.listed(""))
    with urllib.request.urlopen(f"{site.server.address}/metrics", timeout=30) as answer:
        metrics = answer.read().decode()
    assert "anyon_mount_up 1.0" in metrics
    assert "anyon_mount_mounts_total 2.0" in metrics


@pytest.mark.parametrize("engine", ["bubblewrap"], indirect=True)
def test_the_bucket_is_silent_for_a_while(site: Site) -> None:
    """While the bucket does not answer the server does; after it the same mount and containers go on."""
    project = site.project("test-project")
    local = site.server.call("GET", "/api/projects")
    site.emulator.send(signal.SIGSTOP)
    try:
        until(lambda: "mount.silent" in site.events(project), "the silence was noticed")
        end = time.monotonic() + SILENCE
        while time.monotonic() < end:
            assert site.server.call("GET", "/api/projects")[0]["id"] == local[0]["id"]
            time.sleep(0.5)
    finally:
        site.emulator.send(signal.SIGCONT)
    until(lambda: "mount.alive" in site.events(project), "the mount is alive again")
    task = site.task(project, "echo one >one.txt")
    until(lambda: site.status(task) == "inreview", "work goes on")
    with urllib.request.urlopen(f"{site.server.address}/metrics", timeout=30) as answer:
        assert "anyon_mount_mounts_total 1.0" in answer.read().decode()


@pytest.mark.parametrize("engine", ["bubblewrap"], indirect=True)
def test_the_mount_outlives_the_server(site: Site) -> None:
    """A server that is killed leaves the mount; the next one takes it as it is, and the files are there."""
    project = site.project("test-project")
    site.server.kill()
    assert (next(site.place.glob(f"*/{project['id']}")) / ".git").is_dir()
    site.server.start()
    task = site.task(project, "echo one >one.txt")
    until(lambda: site.status(task) == "inreview", "work goes on")
    with urllib.request.urlopen(f"{site.server.address}/metrics", timeout=30) as answer:
        assert "anyon_mount_mounts_total 0.0" in answer.read().decode()
