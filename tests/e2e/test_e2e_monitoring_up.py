"""``anyon monitoring up``: the distribution's own programs over a live server, kept running."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.prometheus_fixtures import Prometheus, is_ready, need

from anyon.cli.sessions import ExitCode
from anyon.monitoring.keepers import keeper_of
from anyon.testing.servers import ANYON, ServerProcess, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def wait_for(what: Callable[[], Any], *, seconds: float = 90) -> Any:
    """Return *what* as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.2)
    return found


class Monitoring:
    """The command over one home, and what it answered."""

    def __init__(self, home: Path, server: ServerProcess | None = None, path: str = "") -> None:
        self.directory = home / "monitoring"
        self._env = {**os.environ, "ANYON_HOME": str(home)}
        if path:
            self._env["PATH"] = path
        self._target = (
            [] if server is None else ["--target", server.address.removeprefix("http://")]
        )

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run it, whatever comes of it."""
        return subprocess.run(
            [str(ANYON), "monitoring", "up", "--json", *argv],
            env=self._env,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def up(self, *argv: str) -> dict[str, Any]:
        """Bring all up; return the answer."""
        done = self.run(*self._target, *argv)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def down(self) -> str:
        """End all; return what was done."""
        done = self.run("--down")
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["state"])


@pytest.fixture
def started() -> Iterator[list[Monitoring]]:
    """Those of a test, which are all ended after it."""
    found: list[Monitoring] = []
    yield found
    for one in found:
        one.down()


def addresses(answer: dict[str, Any]) -> dict[str, str]:
    """Return where each program listens."""
    return {one["name"]: one["address"] for one in answer["programs"]}


def children(directory: Path) -> dict[str, int]:
    """Return the process ids of what a directory's keeper keeps, by the program's file."""
    keeper = keeper_of(directory)
    found = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    return {Path(f"/proc/{pid}/exe").readlink().name: int(pid) for pid in found}


def test_all_come_up_and_stay_up(tmp_path: Path, started: list[Monitoring]) -> None:
    """They scrape the server and each other, are started once, come back when killed, and go when told."""
    for program in ("prometheus", "prometheus-node-exporter", "prometheus-alertmanager"):
        need(program)
    with (
        socket.socket() as taken,
        serving(tmp_path / "home", "memory", ANYON_REQUIRE_TOKENS="false") as server,
    ):
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 9090))
        except OSError:
            pass  # another program of this machine has it: as good
        else:
            taken.listen()
        monitoring = Monitoring(tmp_path / "home", server)
        started.append(monitoring)
        first = monitoring.up()
        assert first["state"] == "started"
        assert not next(it for it in first["programs"] if it["name"] == "prometheus")[
            "is_usual_port"
        ]
        asked = Prometheus(addresses(first)["prometheus"])
        for job in ("anyon-containers", "node", "monitoring"):
            wait_for(lambda job=job: asked.query(f'up{{job="{job}"}} == 1'))
        active = asked.get("alertmanagers")["activeAlertmanagers"]
        assert [it["url"] for it in active] == [f"{addresses(first)['alertmanager']}/api/v2/alerts"]

        before = children(monitoring.directory)
        assert monitoring.up() == {**first, "state": "running"}
        assert children(monitoring.directory) == before
        assert monitoring.up("--docker", "localhost:9999")["state"] == "reloaded"
        wait_for(lambda: asked.query('up{job="docker",instance="localhost:9999"}'))

        os.kill(before["prometheus"], signal.SIGKILL)
        wait_for(lambda: is_ready(f"{asked.address}/-/ready"))
        wait_for(
            lambda: (
                children(monitoring.directory).get("prometheus", before["prometheus"])
                != before["prometheus"]
            )
        )
        pids = list(children(monitoring.directory).values())
        assert monitoring.down() == "stopped"
        assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
        assert monitoring.down() == "absent"


def test_a_keeper_that_is_killed_leaves_nothing_running(
    tmp_path: Path, started: list[Monitoring]
) -> None:
    """The kernel ends what it kept, and the next command begins anew."""
    need("prometheus-alertmanager")
    monitoring = Monitoring(tmp_path)
    started.append(monitoring)
    monitoring.up()
    pids = list(children(monitoring.directory).values())
    keeper = keeper_of(monitoring.directory)
    assert keeper is not None
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert keeper_of(monitoring.directory) is None
    assert monitoring.up()["state"] == "started"


def test_an_alert_reaches_its_webhook(tmp_path: Path, started: list[Monitoring]) -> None:
    """What Alertmanager is told goes to the address that was given."""
    amtool, told = need("amtool"), []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take what comes."""
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    receiver = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=receiver.serve_forever, daemon=True)
    thread.start()
    monitoring = Monitoring(tmp_path)
    started.append(monitoring)
    try:
        answer = monitoring.up(
            "--alert-webhook", f"http://127.0.0.1:{receiver.server_address[1]}/x"
        )
        url = addresses(answer)["alertmanager"]
        labels = ["alertname=AnyonServerDown", "severity=critical", "instance=a"]
        add = [amtool, f"--alertmanager.url={url}", "alert", "add", *labels]
        subprocess.run(add, check=True, timeout=60, capture_output=True)
        wait_for(lambda: told)
        assert told[0]["alerts"][0]["labels"]["alertname"] == "AnyonServerDown"
    finally:
        receiver.shutdown()
        receiver.server_close()


def test_what_is_missing_is_named_with_the_fix(tmp_path: Path) -> None:
    """Without the programs nothing is started or written, and the packages are named."""
    monitoring = Monitoring(tmp_path / "home", path=str(tmp_path))
    done = monitoring.run()
    assert done.returncode == ExitCode.MISSING
    error = json.loads(done.stderr)["error"]
    assert error["code"] == "monitoring_missing"
    assert (
        "apt-get install prometheus prometheus-node-exporter prometheus-alertmanager"
        in error["hint"]
    )
    assert not monitoring.directory.exists()


def test_configuration_that_somebody_changed_stays(
    tmp_path: Path, started: list[Monitoring]
) -> None:
    """It is told, nothing is started, and --force takes the rendered one."""
    need("prometheus-alertmanager")
    monitoring = Monitoring(tmp_path)
    started.append(monitoring)
    monitoring.up()
    monitoring.down()
    rules = monitoring.directory / "config" / "prometheus" / "rules.yml"
    rules.write_text("groups: []\n")
    done = monitoring.run()
    assert done.returncode == ExitCode.CONFLICT
    assert json.loads(done.stderr)["error"]["code"] == "file_not_ours"
    assert keeper_of(monitoring.directory) is None
    assert monitoring.up("--force")["state"] == "started"


GRAFANA = """#!{python}
import http.server, json, os
names = ("GF_PATHS_PROVISIONING", "GF_SERVER_HTTP_ADDR")
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({{name: os.environ[name] for name in names}}).encode())
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["GF_SERVER_HTTP_PORT"])), Health).serve_forever()
"""


def test_grafana_is_started_where_it_is_there(tmp_path: Path, started: list[Monitoring]) -> None:
    """Its program is given the rendered provisioning; without it the command says so."""
    need("prometheus-alertmanager")
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "grafana-server"
    program.write_text(GRAFANA.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monitoring = Monitoring(tmp_path / "home", path=f"{programs}:{os.environ['PATH']}")
    started.append(monitoring)
    found = addresses(monitoring.up())
    with urllib.request.urlopen(f"{found['grafana']}/api/health", timeout=60) as answer:
        told = json.load(answer)
    provisioning = Path(told["GF_PATHS_PROVISIONING"])
    assert told["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    source = (provisioning / "datasources" / "anyon.yml").read_text()
    assert found["prometheus"] in source
    dashboards = (provisioning / "dashboards" / "anyon.yml").read_text()
    assert str(monitoring.directory / "config" / "grafana" / "dashboards") in dashboards
    password = monitoring.directory / "grafana-password"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    # taken away again, the others go on without it
    program.unlink()
    assert "grafana" not in addresses(monitoring.up())
