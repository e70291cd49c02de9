"""The load test as a command, and the plan's script as its operator types it, on real servers."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.docker_fixtures import missing, socket_or_skip

from anyon.testing.servers import ANYON, ServerProcess, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SCRIPT = Path(__file__).parents[2] / "benchmarks/plan_load_test.sh"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on docker, which looks for idle projects often."""
    socket_or_skip()
    home = tmp_path_factory.mktemp("loads") / "home"
    settings = {"ANYON_RECONCILE_INTERVAL": "1s", "ANYON_DEFAULT_AGENT": "SHELL"}
    with serving(home, "docker", **settings) as running:
        yield running


def load_test(server: ServerProcess, *options: str) -> tuple[int, Any]:
    """Run the command and return its exit code and its document."""
    command = [ANYON, "--server", server.address, "load-test", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def counts(document: Any) -> dict[str, tuple[int, int]]:
    """Return operation to (how many, how many failed)."""
    return {
        one["operation"]: (one["count"], sum(one["failures"].values()))
        for one in document["operations"]
    }


def test_the_plans_load_passes(server: ServerProcess, tmp_path: Path) -> None:
    """10 projects, 5 tasks in each, all at once, on docker: each succeeds; one container a project."""
    code, document = load_test(server, "--out", str(tmp_path / "plan"))
    assert counts(document) == {
        "create": (10, 0),
        "task accepted": (50, 0),
        "task done": (50, 0),
        "task's first output": (50, 0),
        "delete": (10, 0),
    }
    assert (code, document["failed"]) == (0, 0)
    listing = (tmp_path / "plan/docker-ps.txt").read_text()
    for one in document["containers"]:
        assert listing.count(f"project-{one['project']}") == 1
    assert "anyon_containers_total" in (tmp_path / "plan/metrics.txt").read_text()
    assert server.call("GET", "/api/projects") == []


def test_a_herd_is_woken(server: ServerProcess, tmp_path: Path) -> None:
    """Projects that the server stopped are woken at once, each to its first output."""
    code, document = load_test(
        server, "--profile", "herd", "--projects", "4", "--out", str(tmp_path / "herd")
    )
    assert counts(document)["fell asleep"] == (4, 0)
    assert counts(document)["wake to first output"] == (4, 0)
    assert code == 0


def test_a_burst_is_created(server: ServerProcess, tmp_path: Path) -> None:
    """All projects are asked for at once, and nothing else is; the container list has each."""
    out = tmp_path / "burst"
    code, document = load_test(server, "--profile", "burst", "--projects", "4", "--out", str(out))
    assert counts(document) == {"create": (4, 0), "delete": (4, 0)}
    listed = json.loads((out / "containers.json").read_text())
    assert [one["phase"] for one in listed] == ["running"] * 4
    assert code == 0


def test_a_soak_goes_on_and_watches_the_server(server: ServerProcess, tmp_path: Path) -> None:
    """The load comes again with new projects until the time is over; the server's memory stands in the report."""
    options = ["--profile", "soak", "--projects", "1", "--tasks", "1"]
    seconds, done = 4.0, 1
    while done == 1:  # on a busy machine one round may take all the time: then it gets more
        assert seconds < 120
        again = ["--hours", str(seconds / 3600), "--out", str(tmp_path / "soak")]
        code, document = load_test(server, *options, *again)
        done, failed = counts(document)["task done"]
        assert (code, failed) == (0, 0)
        seconds = 2 * document["wall_seconds"]
    report = (tmp_path / "soak/report.md").read_text()
    assert "## The server over time" in report
    assert report.count(" MB |") == done + 1


def test_what_fails_is_told(server: ServerProcess, tmp_path: Path) -> None:
    """Tasks that end badly make the command fail, and leave nothing behind."""
    options = ["--projects", "1", "--tasks", "2", "--script", "echo no >&2; exit 3"]
    code, document = load_test(server, *options, "--out", str(tmp_path / "bad"))
    assert code == 1
    assert counts(document)["task done"] == (2, 2)
    assert "task_failed" in (tmp_path / "bad/report.md").read_text()
    assert server.call("GET", "/api/projects") == []


def test_the_plans_script_passes(server: ServerProcess) -> None:
    """The plan's calls, typed as there: 50 tasks end well, one container for each project."""
    for program in ("jq", "curl"):
        if shutil.which(program) is None:
            missing(f"{program} is not here: run scripts/services/shells.sh start")
    # The plan's calls name no agent; the server's default is the shell here.
    done = subprocess.run(
        [SCRIPT, server.address.removeprefix("http://")],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "anyon_containers_total" in done.stdout
    projects = server.call("GET", "/api/projects")
    assert sorted(one["name"] for one in projects) == sorted(f"load-test-{n}" for n in range(1, 11))
    deadline = time.monotonic() + 120
    for one in projects:
        while True:
            tasks = server.call("GET", f"/api/tasks?project_id={one['id']}")
            if all(task["status"] == "inreview" for task in tasks):
                break
            assert time.monotonic() < deadline, tasks
            time.sleep(0.2)
        assert len(tasks) == 5
        assert not any(task["last_attempt_failed"] for task in tasks)
    ids = [one["id"] for one in projects]
    names = subprocess.run(
        ["docker", "ps", "--format", "{{.Names}}"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert [names.count(f"project-{id_}") for id_ in ids] == [1] * 10
