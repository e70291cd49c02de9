"""Real projects that are not ours, and what a test does with them on a real server."""

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from anyon.engines import docker_sockets
from anyon.testing.servers import ANYON, ServerProcess

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / ".cache" / "real-projects"
PATIENCE_SECONDS = 240.0
T = TypeVar("T")

# Two tasks meet: each says that it is here and waits for the other, so neither can come after it.
MEET = """
echo "container $(readlink /proc/self/ns/pid)"
meet() {
    touch "$HOME/met-$1"
    left=1200
    until [ -e "$HOME/met-$2" ]; do
        left=$((left - 1)); [ "$left" -gt 0 ] || { echo "never met $2"; exit 9; }
        sleep 0.1
    done
}
"""


def wait_for(what: Callable[[], T | None], *, seconds: float = PATIENCE_SECONDS) -> T:
    """Return *what* as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)
    return found


def fetch() -> None:
    """Bring the sources about; a registry that cannot be reached is a skip at home and a failure in CI."""
    script = ROOT / "scripts" / "services" / "real_projects.sh"
    done = subprocess.run(
        [script, "start"], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode != 0:
        reason = f"the real projects cannot be fetched: {done.stderr[-2000:]}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def git(repository: Path, *arguments: str) -> None:
    """Run git as a person outside of Anyon would."""
    person = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    subprocess.run(["git", "-C", repository, *person, *arguments], check=True, capture_output=True)


def repository(name: str, place: Path) -> Path:
    """Return a git repository below *place* with the source *name* as its one commit."""
    there = place / name
    shutil.copytree(SOURCES / name, there, symlinks=True)
    git(there, "init", "-q", "-b", "main")
    git(there, "add", "-A")
    git(there, "commit", "-q", "-m", f"The source of {name}")
    return there


class RealTask:
    """One task of a real project, started; the command line follows its log from its start."""

    def __init__(self, server: ServerProcess, project: str, script: str) -> None:
        self._server = server
        made = server.call("POST", "/api/tasks", {"project_id": project, "description": script})
        self.id = str(made["id"])
        (attempt,) = server.call("GET", f"/api/task-attempts?task_id={self.id}")
        self.attempt = str(attempt["id"])
        self._follower = subprocess.Popen(
            [ANYON, "task", "logs", "-f", self.id],
            env=os.environ | {"ANYON_SERVER": server.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def standing(self) -> dict[str, Any]:
        """Return the task as the server tells it."""
        return dict(self._server.call("GET", f"/api/tasks/{self.id}"))

    def until_over(self) -> str:
        """Wait for the task and for who follows it; return the stdout seen live. It must have gone well."""
        try:
            seen, told = self._follower.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._follower.kill()
            seen, told = self._follower.communicate()
        log = seen.decode()
        assert self._follower.returncode == 0, told.decode()
        standing = wait_for(self._over)
        assert not standing["last_attempt_failed"], f"{log}\n{told.decode()}"
        assert standing["status"] == "inreview", f"{log}\n{told.decode()}"
        return log

    def _over(self) -> dict[str, Any] | None:
        found = self.standing()
        return None if found["has_in_progress_attempt"] else found

    def follow_up(self, script: str) -> None:
        """Give the agent another script, and wait until it has run."""
        process = self._server.call(
            "POST", f"/api/task-attempts/{self.attempt}/follow-up", {"prompt": script}
        )
        ended = wait_for(lambda: over(self._server, process["id"]))
        assert ended["exit_code"] == 0, told_by(self._server, process["id"])
        wait_for(self._over)

    def stored(self) -> str:
        """Return what the server keeps of the stdout of all the task's processes, oldest first."""
        path = f"/api/execution-processes?task_attempt_id={self.attempt}"
        found = self._server.call("GET", path)
        return "".join(output_of(self._server, process["id"]) for process in found)

    def setups(self) -> int:
        """Return how many processes of the task were the setup script."""
        path = f"/api/execution-processes?task_attempt_id={self.attempt}"
        found = self._server.call("GET", path)
        return sum(process["run_reason"] == "setupscript" for process in found)

    def diff(self) -> dict[str, str]:
        """Return each changed file and how it changed."""
        found = self._server.call("GET", f"/api/task-attempts/{self.attempt}/diff")
        return {one["newPath"] or one["oldPath"]: one["change"] for one in found}

    def merge(self) -> None:
        """Merge it; the task is done then."""
        self._server.call("POST", f"/api/task-attempts/{self.attempt}/merge")
        assert self.standing()["status"] == "done"

    def refusal(self) -> tuple[int, str]:
        """Try to merge what cannot be; return the status and the code of the refusal."""
        with pytest.raises(urllib.error.HTTPError) as refused:
            self._server.call("POST", f"/api/task-attempts/{self.attempt}/merge")
        return refused.value.code, json.load(refused.value)["error_data"]["code"]


class RealProject:
    """A project imported from a real repository, whose tasks are shell scripts."""

    def __init__(self, server: ServerProcess, source: Path, setup: str) -> None:
        self._server = server
        body = {
            "name": source.name,
            "git_repo_path": str(source),
            "use_existing_repo": True,
            "default_agent": "SHELL",
            "setup_script": setup,
        }
        self.id = str(server.call("POST", "/api/projects", body)["id"])

    def start(self, title: str, script: str) -> RealTask:
        """Start a task; *title* is its description's first line."""
        return RealTask(self._server, self.id, f"# {title}\nset -eu\n{MEET}\n{script}")

    def side_by_side(self, first: tuple[str, str], second: tuple[str, str]) -> Sequence[RealTask]:
        """Run two tasks that meet, check their logs, and return them; both were in one container."""
        tasks = [self.start(*first), self.start(*second)]
        logs = [task.until_over() for task in tasks]
        for task, log in zip(tasks, logs, strict=True):
            assert log == task.stored()
        places = {line for log in logs for line in log.splitlines() if line.startswith("container")}
        assert len(places) == 1, places
        return tasks

    def run(self, script: str) -> str:
        """Run a command in the workspace that must go well; return its output."""
        process = self._server.call(
            "POST", f"/api/projects/{self.id}/exec", {"argv": ["sh", "-euc", script]}
        )
        ended = wait_for(lambda: over(self._server, process["id"]))
        assert ended["exit_code"] == 0, told_by(self._server, process["id"])
        return output_of(self._server, process["id"])

    def until_stopped(self) -> None:
        """Wait until the idle project's container has been stopped."""
        wait_for(lambda: self._phase() == "stopped")

    def _phase(self) -> str:
        return str(self._server.call("GET", f"/api/projects/{self.id}")["phase"])


def over(server: ServerProcess, process: str) -> dict[str, Any] | None:
    """Return a process once it is over."""
    found = server.call("GET", f"/api/execution-processes/{process}")
    return dict(found) if found["completed_at"] else None


def output_of(server: ServerProcess, process: str, channel: str = "stdout") -> str:
    """Return all that a process has printed on a channel."""
    text, offset, finished = b"", 0, False
    while not finished:
        path = f"/api/processes/{process}/output?channel={channel}&offset={offset}&limit=1000000"
        chunk = server.call("GET", f"{path}&wait=10")
        text += base64.b64decode(chunk["data"])
        offset, finished = chunk["next_offset"], chunk["finished"]
    return text.decode()


def told_by(server: ServerProcess, process: str) -> str:
    """Return both channels' output, for the message of a failure."""
    return "\n".join(output_of(server, process, channel) for channel in ("stdout", "stderr"))


def container_count(server: ServerProcess) -> int:
    """Return how many containers the server has, in whatever state."""
    with urllib.request.urlopen(f"{server.address}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    found = [line for line in lines if line.startswith("anyon_containers_total{")]
    return sum(int(float(line.split()[-1])) for line in found)


def docker_containers(project: str) -> Sequence[str]:
    """Return the ids of all of Docker's containers of a project, stopped ones too."""
    listed = subprocess.run(
        [
            *("docker", "-H", str(docker_sockets.find()), "ps", "-a", "--no-trunc"),
            *("--filter", f"name=^/?project-{project}$", "--format", "{{.ID}}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return listed.stdout.split()
