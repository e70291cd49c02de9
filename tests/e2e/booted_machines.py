"""A machine in a container that boots a real systemd, with this checkout's wheel installed as an operator would."""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from anyon.engines import docker_sockets

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
# systemd of a container finds its control groups read-only: they are its own, so it may have them.
# `bind` is for the mount alone: the hierarchies themselves are the host's.
BOOT = r"""
awk '$2 ~ "^/sys/fs/cgroup" {print $2}' /proc/mounts |
while read -r place; do mount -o remount,bind,rw "$place"; done
exec /sbin/init
"""
# What `--privileged` gives but SYS_RESOURCE, which a host in a sandbox may not have itself.
POWERS = ["--cap-add=ALL", "--cap-drop=SYS_RESOURCE", "--device=/dev/fuse", "--cgroupns=private"]
POWERS += [f"--security-opt={name}=unconfined" for name in ("seccomp", "apparmor", "systempaths")]
PLACES = [f"--tmpfs={place}:exec" for place in ("/run", "/run/lock", "/tmp")]


class Machine:
    """A booted machine. *shared* is a directory that it and the host's Docker see at the same path."""

    def __init__(self, name: str, shared: Path) -> None:
        self.name = name
        self.shared = shared

    def run(self, command: str, *, must: bool = True, timeout: float = PATIENCE) -> str:
        """Run a shell's words as root in it, and return what they print; they must succeed if *must*."""
        done = subprocess.run(
            ["docker", "exec", self.name, "sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not must or done.returncode == 0, (command, done.stdout, done.stderr, self.journal())
        return done.stdout.strip()

    def fails(self, command: str, *, timeout: float = PATIENCE) -> str:
        """Run a shell's words that must fail, and return what they complain of."""
        done = subprocess.run(
            ["docker", "exec", self.name, "sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode != 0, (command, done.stdout)
        return done.stderr.strip()

    def put(self, source: Path, target: str) -> None:
        """Copy a file into it, executable."""
        subprocess.run(
            ["docker", "cp", "-q", source.resolve(), f"{self.name}:{target}"],
            check=True,
            timeout=PATIENCE,
        )
        self.run(f"chmod 755 {target}")

    def write(self, target: str, text: str) -> None:
        """Make a file in it, its directory too."""
        self.run(f"mkdir -p {Path(target).parent} && printf %s {shlex.quote(text)} >{target}")

    def shows(self, unit: str, key: str) -> str:
        """Return what systemd says of a unit."""
        return self.run(f"systemctl show --property={key} --value {unit}")

    def pid(self, unit: str) -> int:
        """Return a service's main process, as the machine numbers it."""
        return int(self.shows(unit, "MainPID"))

    def waits_for(self, what: str, holds: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Wait until *holds* does; *what* tells of it when it never does."""
        deadline = time.monotonic() + patience
        while not holds():
            assert time.monotonic() < deadline, f"never: {what}\n{self.journal()}"
            time.sleep(0.1)

    def journal(self) -> str:
        """Return the last words of all services."""
        done = subprocess.run(
            ["docker", "exec", self.name, "journalctl", "--no-pager", "-o", "cat", "-n", "80"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.stdout


@contextmanager
def booted(image: str, wheels: Path, shared: Path) -> Iterator[Machine]:
    """Boot *image* with the host's Docker for its own and Anyon installed; it is gone afterwards."""
    name = f"anyon-booted-{uuid4().hex[:8]}"
    socket = docker_sockets.find()
    assert socket is not None, "an engine must be up"
    at = Path(socket.removeprefix("unix://")).resolve()
    mounts = [f"--volume={shared}:{shared}", f"--volume={at}:/run/docker.sock"]
    command = ["docker", "run", "--detach", "--name", name, "--stop-signal=SIGRTMIN+3"]
    command += [*POWERS, *PLACES, *mounts, image, "sh", "-c", BOOT]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    machine = Machine(name, shared)
    try:
        machine.waits_for("systemd is up", lambda: _is_up(machine))
        made = wheel(wheels)
        machine.put(made, f"/opt/{made.name}")
        machine.run(
            "/opt/anyon/bin/pip install -q --no-deps --no-index --disable-pip-version-check /opt/anyon-*.whl"
            " && ln -s /opt/anyon/bin/anyon /usr/local/bin/"
        )
        yield machine
    finally:
        subprocess.run(
            ["docker", "rm", "-f", "-v", name], check=True, capture_output=True, timeout=PATIENCE
        )


def _is_up(machine: Machine) -> bool:
    state = machine.run("systemctl is-system-running --wait 2>/dev/null", must=False)
    assert state != "degraded", machine.run("systemctl list-units --failed --no-pager")
    return state == "running"


def wheel(place: Path) -> Path:
    """Return a wheel of this checkout, made in *place*."""
    build = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "-q"]
    build += ["--no-deps", "--no-build-isolation", "--wheel-dir", str(place), str(ROOT)]
    subprocess.run(build, check=True, timeout=200)
    (made,) = place.glob("anyon-*.whl")
    return made
