"""A real Prometheus over a real server: every picture of every dashboard has something to show."""

import math
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.docker_fixtures import socket_or_skip
from tests.prometheus_fixtures import Prometheus, need, node_exporter, prometheus, promtool

from anyon.monitoring.dashboards import DASHBOARDS
from anyon.monitoring.folders import write
from anyon.monitoring.renderings import Targets, render
from anyon.testing.servers import ServerProcess, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NOWHERE = "127.0.0.1:9"
EXPRESSIONS = [asked.expr for one in DASHBOARDS for panel in one.panels for asked in panel.targets]
EXEMPLARS = {
    "query": "anyon_http_request_duration_seconds_bucket",
    "start": "2020-01-01T00:00:00Z",
    "end": "2100-01-01T00:00:00Z",
}


def wait_for(what: Callable[[], Any], *, seconds: float = 90) -> Any:
    """Return *what* as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.2)
    return found


def run(server: ServerProcess, project: str, *argv: str) -> str:
    """Start a command in the project and return its id."""
    body = {"argv": list(argv)}
    return str(server.call("POST", f"/api/projects/{project}/exec", body)["id"])


def over(server: ServerProcess, process: str) -> Any:
    """Return when a process ended, None while it runs."""
    return server.call("GET", f"/api/execution-processes/{process}")["completed_at"]


def work(server: ServerProcess) -> str:
    """Do a little of everything: a task, commands, sleep and waking; return the project, in which something runs."""
    project = server.call("POST", "/api/projects", {"name": "seen", "default_agent": "SHELL"})["id"]
    body = {"project_id": project, "description": "echo done > done.txt"}
    task = server.call("POST", "/api/tasks", body)["id"]
    wait_for(lambda: server.call("GET", f"/api/tasks/{task}")["status"] == "inreview")
    wait_for(lambda: server.call("GET", f"/api/projects/{project}")["phase"] == "frozen")
    process = run(server, project, "echo", "awake")
    wait_for(lambda: over(server, process))
    run(server, project, "sleep", "300")
    return str(project)


@contextmanager
def loaded(server: ServerProcess, project: str) -> Iterator[None]:
    """Let clients look and start commands for the length of the block, as fast as they are answered."""
    over_now = threading.Event()

    def ask() -> None:
        while not over_now.is_set():
            run(server, project, "true")
            server.call("GET", "/api/projects")

    with ThreadPoolExecutor(2) as clients:
        asking = [clients.submit(ask) for _ in range(2)]
        try:
            yield
        finally:
            over_now.set()
        for one in asking:
            one.result()


def has_number(answer: list[Any]) -> bool:
    """Say whether any sample is a number."""
    return any(math.isfinite(float(sample["value"][1])) for sample in answer)


def test_every_expression_of_every_dashboard_has_data(tmp_path: Path) -> None:
    """Each is sent to a Prometheus that scrapes a server under load, and returns numbers."""
    need("prometheus")
    times = {
        "ANYON_FREEZE_AFTER": "1s",
        "ANYON_RECONCILE_INTERVAL": "200ms",
        "ANYON_CHECKPOINT_INTERVAL": "1s",
        "ANYON_DISK_INTERVAL": "1s",
    }
    with node_exporter() as node, serving(tmp_path / "home", "bubblewrap", **times) as server:
        targets = Targets(
            server=server.address.removeprefix("http://"),
            docker=NOWHERE,
            node=node,
            interval=timedelta(seconds=1),
        )
        write(tmp_path / "monitoring", render(targets))
        config = tmp_path / "monitoring" / "prometheus" / "prometheus.yml"
        with prometheus(config, tmp_path / "data") as asked:
            wait_for(lambda: has_number(asked.query('up{job="anyon-containers"} == 1')))
            with loaded(server, work(server)):
                for expression in EXPRESSIONS:
                    wait_for(lambda expr=expression: has_number(asked.query(expr)))
            assert asked.query('anyon_containers_total{status="no such status"}') == []
            names, selectors = asked_by_rules(asked)
            assert len(names) >= 9
            for selector in (*names, *selectors):
                wait_for(lambda one=selector: asked.query(one))
            assert asked.get("query_exemplars", **EXEMPLARS)
            assert faults_in(server) == {"anyon_containers_total", "anyon_idle_containers_total"}
            wait_for(lambda: are_well(asked))


def faults_in(server: ServerProcess) -> set[str]:
    """Return which of the server's metrics promtool's linter complains of: two names, which are the plan's."""
    with urllib.request.urlopen(f"{server.address}/metrics", timeout=60) as answer:
        _, words = promtool("check", "metrics", stdin=answer.read().decode())
    return {line.split()[0] for line in words.splitlines() if line.startswith("anyon_")}


def asked_by_rules(asked: Prometheus) -> tuple[list[str], list[str]]:
    """Return the series that the rules record, and all that their expressions select."""
    rules = [rule for group in asked.get("rules")["groups"] for rule in group["rules"]]
    form = re.compile(r"\b(?:(?:anyon|process)_[a-z0-9_]+|anyon:[a-z0-9_:]+|up)(?:\{[^}]*\})?")
    found = {match[0] for rule in rules for match in form.finditer(rule["query"])}
    # There have been no failing requests: the rule that records them says 0 then.
    recorded = [rule["name"] for rule in rules if rule["type"] == "recording"]
    return recorded, sorted(one for one in found if "5.." not in one)


def are_well(asked: Prometheus) -> bool:
    """Say whether every rule was evaluated, all without a fault; and no alert has fired."""
    rules = [rule for group in asked.get("rules")["groups"] for rule in group["rules"]]
    assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []
    return all(rule["health"] == "ok" for rule in rules)


def scraped(server: ServerProcess) -> dict[str, float]:
    """Return all series as the server tells them now; the last look is over a second old."""
    time.sleep(1.1)
    with urllib.request.urlopen(f"{server.address}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found = re.findall(r"^(anyon_\S+) (\S+)$", text, re.MULTILINE)
    return {series: float(value) for series, value in found}


def counts(told: dict[str, float]) -> list[float]:
    """Return how many containers run, are frozen, and are stopped."""
    states = ("running", "frozen", "stopped")
    return [told[f'anyon_containers_total{{status="{state}"}}'] for state in states]


def test_metrics_say_what_docker_says(tmp_path: Path) -> None:
    """A container that is paused, stopped or removed behind the server's back is told so, before any reconciling."""
    socket = socket_or_skip()

    def docker(*argv: str) -> None:
        subprocess.run(["docker", "-H", socket, *argv], check=True, capture_output=True, timeout=90)

    with serving(tmp_path / "home", "docker", ANYON_RECONCILE_INTERVAL="1h") as server:
        project = server.call("POST", "/api/projects", {"name": "watched"})["id"]
        name, memory = (
            f"project-{project}",
            f'anyon_container_memory_bytes{{project_id="{project}"}}',
        )
        told = scraped(server)
        assert counts(told) == [1, 0, 0]
        assert told[memory] > 2**16
        docker("pause", name)
        assert counts(scraped(server)) == [0, 1, 0]
        docker("unpause", name)
        docker("stop", "-t", "0", name)
        told = scraped(server)
        assert counts(told) == [0, 0, 1]
        assert memory not in told
        docker("rm", name)
        assert counts(scraped(server)) == [0, 0, 0]
