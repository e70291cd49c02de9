"""A real server as a process of its own, which a test can end, kill and start again over its home."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ANYON = Path(sys.executable).parent / "anyon"
PATIENCE_SECONDS = 90.0


class ServerProcess:
    """``anyon serve`` over *home* on *engine*, with more settings as ``ANYON_*`` variables.

    *program* is another installation's ``anyon``.
    """

    def __init__(
        self,
        home: Path,
        engine: str,
        settings: dict[str, str] | None = None,
        *,
        program: Path = ANYON,
    ) -> None:
        self.home = home
        self.port = _free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = home.parent / f"{home.name}.log"
        self.engine = engine
        self.settings = settings or {}
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process id; it must have been started."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        command = [str(self._program), "serve", "--engine", self.engine, "--port", str(self.port)]
        env = os.environ | {"ANYON_HOME": str(self.home)} | self.settings
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = self.log.read_text(errors="replace")[-4000:]
                raise RuntimeError(f"the server did not start:\n{text}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            self.call("GET", "/api/health")
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as an operator would."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=PATIENCE_SECONDS)
            self._process = None

    def call(self, method: str, path: str, body: object | None = None) -> Any:
        """Return the ``data`` of one answer; urllib.error.HTTPError for a refusal."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        # The address is always http://127.0.0.1:port, made above.
        request = urllib.request.Request(  # noqa: S310
            self.address + path, data=data, headers=headers, method=method
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
            return json.load(answer)["data"]

    def remove_projects(self) -> None:
        """Delete every project, its container with it."""
        for project in self.call("GET", "/api/projects"):
            self.call("DELETE", f"/api/projects/{project['id']}")

    def resident_bytes(self) -> int:
        """Return the server's resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def cpu_seconds(self) -> float:
        """Return how much CPU time the server has used, in user and system mode."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(home: Path, engine: str, **settings: str) -> Iterator[ServerProcess]:
    """Run a server for the length of the block; its projects and their containers are removed after."""
    server = ServerProcess(home, engine, settings)
    server.start()
    try:
        yield server
        server.remove_projects()
    except BaseException:
        _clean_after_failure(server)
        raise
    finally:
        server.stop()


def _clean_after_failure(server: ServerProcess) -> None:
    """Leave no container behind; what fails here must not hide the failure that came first."""
    try:
        if server._process is None:  # noqa: SLF001 - this module's own class
            server.start()
        server.remove_projects()
    except Exception as error:  # noqa: BLE001 - see above; it is told
        print(f"containers may be left behind: {error!r}", file=sys.stderr)  # noqa: T201 - to the test's own output


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
