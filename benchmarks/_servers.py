"""A real server of the benchmark's own, in a home of its own, on a free port."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ANYON = Path(sys.executable).parent / "anyon"


@dataclass(frozen=True, slots=True)
class RunningServer:
    """Where it listens, where it keeps its files, and which process it is."""

    address: str
    home: Path
    pid: int

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
def server(engine: str, **settings: str) -> Iterator[RunningServer]:
    """Run a server on *engine* for the length of the block; its projects are removed after."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(
        prefix="anyon-bench-", ignore_cleanup_errors=True
    ) as directory:
        home = Path(directory) / "home"
        env = os.environ | {"ANYON_HOME": str(home), "ANYON_LOG_LEVEL": "warning"} | settings
        with (Path(directory) / "log").open("wb") as log:
            process = subprocess.Popen(
                [ANYON, "serve", "--engine", engine, "--port", str(port)],
                env=env,
                stdout=log,
                stderr=log,
            )
        address = f"http://127.0.0.1:{port}"
        try:
            _wait(process, address, Path(directory) / "log")
            yield RunningServer(address, home, process.pid)
            _remove_projects(address)
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{address}/api/health", timeout=5).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{log.read_text()}") from None
            time.sleep(0.05)
        else:
            return


def _remove_projects(address: str) -> None:
    with urllib.request.urlopen(f"{address}/api/projects", timeout=60) as answer:
        projects = json.load(answer)["data"]
    for project in projects:
        request = urllib.request.Request(f"{address}/api/projects/{project['id']}", method="DELETE")
        urllib.request.urlopen(request, timeout=120).close()
