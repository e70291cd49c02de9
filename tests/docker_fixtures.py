"""What tests of the docker engine share: an engine that answers, its image, an engine to break."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

import pytest

from anyon.engines import docker_sockets
from anyon.engines.docker import DockerEngine

IMAGE = os.environ.get("ANYON_TEST_IMAGE", "anyon/workspace:latest")
UID = 1000
PATIENCE = 60.0


def socket_or_skip() -> str:
    """Return the engine's address; without one this is a skip at home and a failure in CI."""
    found = docker_sockets.find()
    if found is None:
        missing("no Docker engine answers: run scripts/services/docker.sh start")
    return found


def missing(reason: str) -> NoReturn:
    """Skip, or fail where everything must be there."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def new_engine(socket: str, *, instance: str | None = None, image: str = IMAGE) -> DockerEngine:
    """Return an engine of an Anyon home of its own, so that tests do not list each other's."""
    return DockerEngine(socket, instance=instance or f"test-{uuid4()}", uid=UID, image=image)


class PrivateDocker:
    """A second engine that a test may kill: in a network of its own, where it harms nobody."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.address = f"unix://{directory}/s"
        self._log = directory / "log"
        self.keeps_containers = True
        """Whether containers go on without the daemon (live-restore), from its next start on."""

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        (self._directory / "pid").unlink(missing_ok=True)
        self._forget_containerd()
        (self._directory / "empty.json").write_text("{}")
        at = self._directory
        engine = (
            f"ip link set lo up && exec dockerd --config-file {at}/empty.json --data-root {at}/d"
            f" --exec-root {at}/e -H {self.address} -p {at}/pid"
            f" --live-restore={str(self.keeps_containers).lower()}"
        )
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                ["unshare", "-n", "--", "sh", "-c", engine],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._process = process
        end = time.monotonic() + PATIENCE
        while not docker_sockets.listens(at / "s") or self.docker("version").returncode:
            if time.monotonic() > end or process.poll() is not None:
                missing(f"a private dockerd did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.1)

    def _forget_containerd(self) -> None:
        # It dies with the daemon; where nobody reaps it, its pid file makes the next one wait.
        file = self._directory / "e/containerd/containerd.pid"
        end = time.monotonic() + PATIENCE
        while file.exists() and time.monotonic() < end:
            status = Path(f"/proc/{file.read_text().strip()}/status")
            if not status.exists() or "State:\tZ" in status.read_text():
                file.unlink()
            time.sleep(0.05)

    def docker(self, *argv: str) -> subprocess.CompletedProcess[bytes]:
        """Run the client on this engine."""
        return subprocess.run(
            ["docker", "-H", self.address, *argv],
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )

    def signal(self, number: int) -> None:
        """Send the daemon a signal; after a KILL it is waited for."""
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait(PATIENCE)

    def load(self, image: str, source: str) -> None:
        """Copy *image* from the engine at *source*."""
        with subprocess.Popen(
            ["docker", "-H", source, "save", image], stdout=subprocess.PIPE
        ) as saved:
            subprocess.run(
                ["docker", "-H", self.address, "load"],
                stdin=saved.stdout,
                check=True,
                capture_output=True,
                timeout=PATIENCE,
            )

    def stop(self) -> None:
        """End the daemon, its containers, its containerd and its mounts."""
        with contextlib.suppress(OSError):
            self._process.send_signal(signal.SIGCONT)
        names = self.docker("ps", "-aq").stdout.split()
        if names:
            self.docker("rm", "-f", *(name.decode() for name in names))
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self._process.kill()
        self._process.wait(PATIENCE)
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self._directory / "e/containerd/containerd.pid").read_text()), 15)
        mounts = Path("/proc/mounts").read_text().split("\n")
        for where in sorted((line.split(" ")[1] for line in mounts if line), reverse=True):
            if where.startswith(f"{self._directory}/"):
                subprocess.run(["umount", "-l", where], check=False)


@contextlib.contextmanager
def private_docker(source: str) -> Iterator[PrivateDocker]:
    """Give a running engine of one's own that has the tests' image. Needs root."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        missing("an engine of one's own needs root and dockerd")
    # Sockets lie below it: the path must be short.
    directory = Path(tempfile.mkdtemp(prefix="ad"))
    engine = PrivateDocker(directory)
    try:
        engine.start()
        engine.load(IMAGE, source)
        yield engine
    finally:
        engine.stop()
        shutil.rmtree(directory, ignore_errors=True)
