"""Bad days: an engine that dies under work, images that cannot be used, output without end."""

import base64
import json
import signal
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.docker_fixtures import IMAGE, private_docker, socket_or_skip

from anyon.testing.servers import ServerProcess, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
GIGABYTE = 1024**3


def wait_for_end(server: ServerProcess, process: str) -> dict[str, Any]:
    """Return the process once it is over."""
    deadline = time.monotonic() + 200
    while True:
        found: dict[str, Any] = server.call("GET", f"/api/execution-processes/{process}")
        if found["completed_at"]:
            return found
        assert time.monotonic() < deadline, "it does not end"
        time.sleep(0.2)


def refusal(server: ServerProcess, path: str, body: object) -> tuple[int, str]:
    """Return status and code of a request that must be refused."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.call("POST", path, body)
    return refused.value.code, str(json.load(refused.value)["error_data"]["code"])


@pytest.fixture(scope="module")
def gitless() -> Iterator[str]:
    """An image that has no git."""
    socket_or_skip()
    tag = "anyon/tests-gitless:latest"
    made = subprocess.run(
        ["docker", "run", "-d", "-u", "0", IMAGE, "sh", "-c", "rm -f $(command -v git)"],
        capture_output=True,
        text=True,
        check=True,
    )
    container = made.stdout.strip()
    subprocess.run(["docker", "wait", container], check=True, capture_output=True)
    subprocess.run(
        ["docker", "commit", "-c", "USER 1000", container, tag], check=True, capture_output=True
    )
    subprocess.run(["docker", "rm", container], check=True, capture_output=True)
    yield tag
    subprocess.run(["docker", "rmi", tag], check=False, capture_output=True)


@pytest.mark.docker
def test_images_that_cannot_be_used_leave_nothing(tmp_path: Path, gitless: str) -> None:
    """An image without git and one that is not there are each a clear refusal; nothing stays."""
    with serving(tmp_path / "home", "docker") as server:
        body = {"name": "gitless", "image": gitless}
        assert refusal(server, "/api/projects", body) == (424, "git_missing")
        body = {"name": "gone", "image": "anyon/no-such-image:latest"}
        assert refusal(server, "/api/projects", body) == (424, "image_missing")
        assert server.call("GET", "/api/projects") == []
        assert list((server.home / "projects").glob("*/*")) == []
        server.call("POST", "/api/projects", {"name": "gitless"})  # the name is free again


@pytest.mark.docker
def test_docker_killed_under_a_task_is_told_and_survived(tmp_path: Path) -> None:
    """While the daemon is away new work is refused with 503; the task goes on and no line is lost."""
    with (
        private_docker(socket_or_skip()) as docker,
        serving(tmp_path / "home", "docker", ANYON_DOCKER_SOCKET=docker.address) as server,
    ):
        project = server.call("POST", "/api/projects", {"name": "tough"})["id"]
        script = "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); sleep 0.1; done; exit 3"
        work = {"argv": ["sh", "-c", script]}
        process = server.call("POST", f"/api/projects/{project}/exec", work)["id"]
        docker.signal(signal.SIGKILL)
        status, code = refusal(server, f"/api/projects/{project}/exec", {"argv": ["true"]})
        assert (status, code) == (503, "engine_unavailable")
        docker.start()
        assert wait_for_end(server, process)["exit_code"] == 3
        chunk = server.call("GET", f"/api/processes/{process}/output?limit=1000000")
        lines = base64.b64decode(chunk["data"]).decode().splitlines()
        assert lines == [f"line {number}" for number in range(100)]
        again = server.call("POST", f"/api/projects/{project}/exec", {"argv": ["true"]})["id"]
        assert wait_for_end(server, again)["exit_code"] == 0


def test_five_gigabytes_of_output_fill_neither_disk_nor_memory(tmp_path: Path) -> None:
    """Head and tail are kept, offsets stay true, and what is held on disk and in memory is bounded."""
    with serving(tmp_path / "home", "bubblewrap", ANYON_OUTPUT_CAP="4MiB") as server:
        project = server.call("POST", "/api/projects", {"name": "loud"})["id"]
        script = "echo begin; head -c 5368709120 /dev/zero; echo end"
        process = server.call(
            "POST", f"/api/projects/{project}/exec", {"argv": ["sh", "-c", script]}
        )["id"]
        output = server.home / "state" / project / "run" / process / "stdout"
        most = 0
        while not server.call("GET", f"/api/execution-processes/{process}")["completed_at"]:
            most = max(most, output.stat().st_blocks * 512)
            time.sleep(0.05)
        assert wait_for_end(server, process)["exit_code"] == 0
        total = output.stat().st_size
        assert total == 5 * GIGABYTE + len("begin\nend\n")
        assert most < GIGABYTE
        deadline = time.monotonic() + 60
        while (
            output.stat().st_blocks * 512 > 32 * 1024**2
        ):  # what the file system keeps for itself comes on top
            assert time.monotonic() < deadline, "the middle stays on the disk"
            time.sleep(0.2)
        head = server.call("GET", f"/api/processes/{process}/output?limit=6")
        assert base64.b64decode(head["data"]) == b"begin\n"
        tail = server.call("GET", f"/api/processes/{process}/output?offset={total - 4}&limit=10")
        assert base64.b64decode(tail["data"]) == b"end\n"
        assert server.resident_bytes() < 400 * 10**6
