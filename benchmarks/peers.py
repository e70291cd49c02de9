"""Other ways to give code a container: SWE-ReX and JupyterHub's DockerSpawner, beside Anyon on the same engine.

Each does what its users do with it: SWE-ReX, the sandbox of coding agents, starts a container with its server in it and runs
commands by that; JupyterHub starts a container for a user and waits until the server in it answers. Anyon makes a project, or wakes
one, and runs a command, whose output a client sees. The peers are of the versions in `benchmarks/peers.py`; the first run
installs them into `.cache/peers`, an environment of their own, and makes images of Anyon's own one with the peer's agent
in it. That takes minutes, and is kept.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anyon.testing.servers import ServerProcess, serving
from benchmarks.report import Row, percentile, rounds

SERVICES = ("docker", "images", "rivals")
ROUNDS = rounds(5)
BASE = "anyon/workspace:full"
SWEREX = ["swe-rex==1.4.0"]
JUPYTERHUB = ["jupyterhub==6.1.1", "dockerspawner==14.0.0"]
SINGLEUSER = ["jupyterhub==6.1.1", "jupyterlab==4.5.0"]
PROXY = "configurable-http-proxy@5.3.0"

_ROOT = Path(__file__).parents[1]
_PLACE = _ROOT / ".cache/peers"


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join(str(word) for word in command)
        raise RuntimeError(f"{words} failed:\n{done.stderr[-3000:]}")
    return done.stdout.strip()


def _environment(packages: Sequence[str]) -> Path:
    """Return the Python of the peers' environment, with *packages* in it."""
    python = _PLACE / "venv/bin/python"
    uv = Path(sys.executable).parent / "uv"
    if not python.exists():
        _PLACE.mkdir(parents=True, exist_ok=True)
        _run(uv, "venv", "--quiet", "--python", sys.executable, _PLACE / "venv")
    _run(uv, "pip", "install", "--quiet", "--python", python, *packages)
    return python


def _image(name: str, packages: Sequence[str]) -> str:
    """Return an image with *packages* installed by pip, made of Anyon's if it is not there."""
    tag = f"anyon-bench/{name}:{'-'.join(p.rpartition('==')[2] for p in packages)}"
    if _run("docker", "images", "--quiet", tag):
        return tag
    install = ["pip", "install", "--quiet", "--no-cache-dir", "--break-system-packages", *packages]
    container = _run("docker", "create", "--network", "host", "--user", "root", BASE, *install)
    try:
        _run("docker", "start", "--attach", container)
        changes = ["--change", "USER anyon", "--change", "CMD []"]
        _run("docker", "commit", *changes, container, tag)
    finally:
        _run("docker", "rm", "--force", container)
    return tag


def _swerex() -> dict[str, list[float]]:
    # Its client needs aiohttp and does not say so.
    python = _environment([*SWEREX, "aiohttp"])
    image = _image("swerex", SWEREX)
    script = _ROOT / "benchmarks/_peer_swerex.py"
    return _times(_run(python, script, image, str(ROUNDS)))


def _jupyterhub() -> dict[str, list[float]]:
    python = _environment(JUPYTERHUB)
    if not (_PLACE / "node_modules/.bin/configurable-http-proxy").exists():
        _run("npm", "install", "--silent", "--prefix", _PLACE, PROXY)
    image = _image("jupyterhub", SINGLEUSER)
    script = _ROOT / "benchmarks/_peer_jupyterhub.py"
    path = f"{python.parent}:{_PLACE}/node_modules/.bin:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="anyon-bench-hub-") as directory:
        return _times(_run("env", f"PATH={path}", python, script, image, str(ROUNDS), directory))


def _times(printed: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads(printed.splitlines()[-1])
    return found


def _first_output(server: ServerProcess, project: str) -> float:
    """Return the milliseconds from asking for a command to its first output, seen by long poll."""
    began = time.perf_counter()
    body = {"argv": ["echo", "on"]}
    process: Any = server.call("POST", f"/api/projects/{project}/exec", body)
    wanted = f"/api/processes/{process['id']}/output?channel=stdout&offset=0&wait=30"
    while not server.call("GET", wanted)["data"]:
        pass
    return (time.perf_counter() - began) * 1000


def _anyon() -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"create": [], "exec": [], "start": []}
    # A stop after a second: what is measured next is a start.
    settings = {"ANYON_RECONCILE_INTERVAL": "200ms", "ANYON_WAKES_PER_HOUR": "0"}
    with (
        tempfile.TemporaryDirectory(prefix="anyon-bench-") as directory,
        serving(Path(directory) / "home", "docker", ANYON_IMAGE=BASE, **settings) as server,
    ):
        for number in range(ROUNDS):
            began = time.perf_counter()
            project = server.call("POST", "/api/projects", {"name": f"peer-{number}"})["id"]
            _first_output(server, project)
            times["create"].append((time.perf_counter() - began) * 1000)
            times["exec"] += [_first_output(server, project) for _ in range(3)]
            idle = {"freeze_after": 0, "stop_after": 1}
            server.call("PUT", f"/api/projects/{project}", idle)
            _wait_until_stopped(server, project)
            times["start"].append(_first_output(server, project))
    return times


def _wait_until_stopped(server: ServerProcess, project: str) -> None:
    deadline = time.monotonic() + 60
    while server.call("GET", f"/api/projects/{project}")["phase"] != "stopped":
        if time.monotonic() > deadline:
            raise RuntimeError("the project was not stopped")
        time.sleep(0.05)


def run() -> Sequence[Row]:
    """Measure all three, one after the other on the same engine."""
    swerex, hub, own = _swerex(), _jupyterhub(), _anyon()
    return [
        _row(
            "new project to first output",
            own["create"],
            "SWE-ReX, start() and a command",
            swerex["create"],
        ),
        _row(
            "new project to first output", own["create"], "DockerSpawner, new server", hub["create"]
        ),
        _row("command in a warm container", own["exec"], "SWE-ReX, execute", swerex["exec"]),
        _row(
            "wake from stopped to first output",
            own["start"],
            "DockerSpawner, server again",
            hub["start"],
        ),
    ]


def _row(what: str, own: Sequence[float], reference: str, theirs: Sequence[float]) -> Row:
    return Row(
        what=f"{what}, p50",
        value=percentile(own, 0.5),
        unit="ms",
        reference=reference,
        reference_value=percentile(theirs, 0.5),
        target_ratio=None,
    )
