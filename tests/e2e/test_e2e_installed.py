"""What was installed outside a project's files survives the loss of its container and of the machine."""

import json
import os
import random
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import pytest

from anyon.engines import docker_sockets
from anyon.testing.servers import ANYON, ServerProcess, serving

KILLS = int(os.environ.get("ANYON_LAYER_KILLS", "2"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 60 * KILLS)]

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / ".cache" / "real-packages"
# Programs in Docker are nobody special by default; installing packages takes the image's root.
SETTINGS = {"ANYON_IMAGE": "anyon/workspace:full", "ANYON_CONTAINER_UID": "0"}
INSTALL = """
set -e
dpkg -i tree.deb
npm install -g --prefix /usr/local ./semver.tgz
rm -r /usr/share/doc/bash
printf '#!/bin/sh\\necho own\\n' >/usr/local/bin/own
chmod 4755 /usr/local/bin/own
rm -r /usr/share/doc/dash
mkdir /usr/share/doc/dash
echo mine >/usr/share/doc/dash/mine
tree --version && semver 1.2.3
"""
USE = """
set -e
tree --version | cut -d' ' -f1,2 | cut -c1-6
semver 1.2.3 2.0.0 -r '^1.0.0'
dpkg-query -W -f '${Status}\\n' tree
test ! -e /usr/share/doc/bash && echo gone
ls /usr/share/doc/dash
stat -c '%a %u' /usr/local/bin/own
own
"""
USED = "tree v\n1.2.3\ninstall ok installed\ngone\nmine\n4755 0\nown\n"


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    """A real Debian package and a real npm package, fetched; else a skip at home, a failure in CI."""
    script = ROOT / "scripts" / "services" / "real_packages.sh"
    done = subprocess.run(
        [script, "start"], capture_output=True, text=True, timeout=240, check=False
    )
    if done.returncode != 0 or os.geteuid() != 0:
        missing(f"real packages cannot be had, or installed: {done.stderr[-2000:]}")


def missing(reason: str) -> NoReturn:
    """Skip at home; fail where everything must be there."""
    pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


def anyon(address: str, *arguments: str, **env: str) -> str:
    """Run one command and return what it printed; it must succeed."""
    done = subprocess.run(
        [ANYON, *arguments],
        env=os.environ | {"ANYON_SERVER": address, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def run(server: ServerProcess, script: str) -> str:
    return anyon(server.address, "exec", "p", "--", "sh", "-c", script)


def events(server: ServerProcess, kind: str) -> list[dict[str, Any]]:
    found = json.loads(anyon(server.address, "project", "events", "p", "--json"))
    return [event for event in found if event["kind"] == kind]


def install(server: ServerProcess) -> None:
    """Make the project and install both packages in it."""
    anyon(server.address, "project", "create", "p", "--agent", "shell")
    (project,) = server.call("GET", "/api/projects")
    for name in ("tree.deb", "semver.tgz"):
        shutil.copy(PACKAGES / name, project["git_repo_path"])
    run(server, INSTALL)
    assert run(server, USE) == USED


def docker(*arguments: str) -> None:
    subprocess.run(["docker", *arguments], check=True, capture_output=True, timeout=120)


def wait_until_free(server: ServerProcess) -> None:
    """Wait until nothing holds the project awake."""
    deadline = time.monotonic() + 60
    while json.loads(anyon(server.address, "project", "why", "p", "--json"))["leases"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def lose_container(server: ServerProcess) -> None:
    """Remove the project's container as a stranger would; its layer goes with it."""
    (project,) = server.call("GET", "/api/projects")
    name = f"project-{project['id']}"
    docker("rm", "-f", name)


def test_packages_survive_the_machine(tmp_path: Path, engine: str) -> None:
    """A Debian and a global npm package, deletions and setuid bits are there again on another machine."""
    store = {"ANYON_STORE": str(tmp_path / "store")}
    first = ServerProcess(tmp_path / "one", engine, SETTINGS | store)
    first.start()
    try:
        install(first)
        anyon(first.address, "checkpoint", "save", "p")
    finally:
        first.kill()
        _lose(first)
    assert not (tmp_path / "one").exists()
    home = {"ANYON_HOME": str(tmp_path / "two")}
    anyon("", "recover", "--from", store["ANYON_STORE"], "--take-over", **home)
    with serving(tmp_path / "two", engine, **SETTINGS, **store) as second:
        assert run(second, USE) == USED
        # It goes on from there: what is added is in the next checkpoint too.
        run(second, "echo more >/usr/local/bin/more-of-it")
        anyon(second.address, "checkpoint", "save", "p")
        saved = json.loads(anyon(second.address, "checkpoint", "list", "p", "--json"))
        assert saved[0]["new_bytes"] < 200_000
        if engine == "docker":
            (back,) = events(second, "system.brought_back")
            assert back["reason"] == "same_image"


def _lose(server: ServerProcess) -> None:
    """Take away all that the machine had: containers with their layers, and the home."""
    with serving(server.home, server.engine, ANYON_STORE="none"):
        pass  # it removes its projects at the end, and keeps nothing
    shutil.rmtree(server.home)


def test_packages_survive_a_container(tmp_path: Path) -> None:
    """A container that a stranger removed is made again with what was in it, on another image too."""
    if docker_sockets.find() is None:
        missing("no Docker engine answers: run scripts/services/docker.sh start")
    image = f"anyon-test-{uuid4()}"
    # What is in no checkpoint is to be so for certain.
    unasked = {"ANYON_CHECKPOINT_INTERVAL": "0"}
    with serving(tmp_path / "home", "docker", **SETTINGS, **unasked) as server:
        install(server)
        anyon(server.address, "checkpoint", "save", "p")
        lose_container(server)
        assert run(server, USE) == USED
        # What no checkpoint has is lost with a container; what one has is not.
        run(server, "rm /usr/local/bin/own; echo late >/usr/local/bin/late")
        lose_container(server)
        assert run(server, USE + "test ! -e /usr/local/bin/late") == USED
        # Saved while there is no container: what waits for the next one is in the checkpoint.
        lose_container(server)
        anyon(server.address, "checkpoint", "save", "p")
        assert run(server, USE) == USED
        assert [event["reason"] for event in events(server, "system.brought_back")] == [
            "same_image"
        ] * 3
        server.stop()
        docker("run", "--name", image, "-u", "0", SETTINGS["ANYON_IMAGE"], "touch", "/etc/newer")
        try:
            docker("commit", image, image)
            server.settings["ANYON_IMAGE"] = image
            server.start()
            lose_container(server)
            assert run(server, USE + "ls /etc/newer") == USED + "/etc/newer\n"
            assert events(server, "system.brought_back")[-1]["reason"] == "image_changed"
            server.remove_projects()
        finally:
            for remove in (["rm", image], ["rmi", "-f", image]):
                subprocess.run(["docker", *remove], check=False, capture_output=True, timeout=120)


def test_a_server_killed_while_it_fills_a_container(tmp_path: Path) -> None:
    """Killed at any moment of it, the server's next life runs programs over the whole layer or none."""
    if docker_sockets.find() is None:
        missing("no Docker engine answers: run scripts/services/docker.sh start")
    many = "mkdir /usr/local/many; cd /usr/local/many; seq 4000 | xargs touch"
    count = "ls /usr/local/many | wc -l; test ! -e /usr/share/doc/bash && echo gone"
    with serving(tmp_path / "home", "docker", **SETTINGS) as server:
        anyon(server.address, "project", "create", "p", "--agent", "shell")
        run(server, many + "; rm -r /usr/share/doc/bash")
        anyon(server.address, "checkpoint", "save", "p")
        for _ in range(KILLS):
            lose_container(server)
            waking = subprocess.Popen(
                [ANYON, "exec", "p", "--", "true"],
                env=os.environ | {"ANYON_SERVER": server.address},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(random.uniform(0.3, 3))
            server.kill()
            waking.wait(60)
            server.start()
            assert run(server, count) == "4000\ngone\n"


def test_going_back_takes_installed_software_along(tmp_path: Path, engine: str) -> None:
    """A restore of an earlier checkpoint brings back what was installed then, and nothing newer."""
    with serving(tmp_path / "home", engine, **SETTINGS) as server:
        anyon(server.address, "project", "create", "p", "--agent", "shell")
        run(server, "echo 1 >/usr/local/bin/version")
        saved = json.loads(anyon(server.address, "checkpoint", "save", "p", "--json"))
        run(
            server,
            "echo 2 >/usr/local/bin/version; touch /usr/local/bin/newer; rm -r /usr/share/doc/bash",
        )
        wait_until_free(server)
        anyon(server.address, "checkpoint", "restore", "p", saved["id"])
        assert run(server, "cat /usr/local/bin/version; ls -d /usr/share/doc/bash") == (
            "1\n/usr/share/doc/bash\n"
        )
        assert run(server, "ls /usr/local/bin").split().count("newer") == 0
