"""Two servers, one store: a dead one's projects are taken over, a live one that lost them stands still."""

import os
import signal
import subprocess
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from anyon.testing.servers import ANYON, ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]
PATIENCE = 90.0


def until(condition: Callable[[], Any], server: ServerProcess) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, server.log.read_text()[-4000:]
        time.sleep(0.2)


@contextmanager
def ended(*servers: ServerProcess) -> Iterator[None]:
    """End servers whatever happens; one may be stopped by a signal."""
    try:
        yield
    finally:
        for server in servers:
            if server._process is not None:
                os.kill(server.pid, signal.SIGCONT)
                server.kill()


def recover(home: Path, store: Path) -> None:
    """Take everything of the store over, into a home."""
    subprocess.run(
        [ANYON, "recover", "--from", store, "--take-over", "--json"],
        env=os.environ | {"ANYON_HOME": str(home)},
        check=True,
        capture_output=True,
        timeout=120,
    )


def write(server: ServerProcess, project: str, text: str) -> None:
    """Write a file in the project and wait for the program's end."""
    argv = ["sh", "-c", f"echo {text} > who"]
    made = server.call("POST", f"/api/projects/{project}/exec", {"argv": argv})
    path = f"/api/execution-processes/{made['id']}"
    until(lambda: server.call("GET", path)["status"] != "running", server)


def heads(store: Path) -> dict[str, bytes]:
    """Return all heads of the store."""
    return {str(path): path.read_bytes() for path in store.glob("objects/*/*/head=")}


def test_a_stopped_server_wakes_after_a_takeover(tmp_path: Path) -> None:
    """It records the loss, refuses work, moves no head and leaves its files; the new one works on."""
    store = tmp_path / "store"
    settings = {
        "ANYON_STORE": str(store),
        "ANYON_CHECKPOINT_INTERVAL": "1s",
        "ANYON_RECONCILE_INTERVAL": "1s",
    }
    old = ServerProcess(tmp_path / "old", "memory", settings)
    new = ServerProcess(tmp_path / "new", "memory", settings)
    with ended(old, new):
        old.start()
        project = old.call("POST", "/api/projects", {"name": "wanted"})["id"]
        write(old, project, "old")
        old.call("POST", f"/api/projects/{project}/checkpoints")
        os.kill(old.pid, signal.SIGSTOP)
        recover(new.home, store)
        new.start()
        write(new, project, "new")
        new.call("POST", f"/api/projects/{project}/checkpoints")
        taken = heads(store)
        os.kill(old.pid, signal.SIGCONT)
        with pytest.raises(urllib.error.HTTPError):
            # Its next save finds out; the claim of ten minutes is not asked for before.
            old.call("POST", f"/api/projects/{project}/checkpoints")
        found = old.call("GET", f"/api/projects/{project}")
        assert (found["phase"], found["state_reason"]) == ("error", "owned_elsewhere")
        with pytest.raises(urllib.error.HTTPError) as caught:
            old.call("POST", f"/api/projects/{project}/exec", {"argv": ["true"]})
        assert caught.value.code == 409
        assert next((old.home / "projects").glob("*/*/who")).read_text() == "old\n"
        assert heads(store) == taken
        write(new, project, "newer")
        new.call("POST", f"/api/projects/{project}/checkpoints")
        assert heads(store) != taken
        assert next((new.home / "projects").glob("*/*/who")).read_text() == "newer\n"


def test_a_dead_server_is_taken_over(tmp_path: Path) -> None:
    """Its projects go on at another, with their last files; started again, it stands still for them."""
    store = tmp_path / "store"
    settings = {"ANYON_STORE": str(store), "ANYON_CHECKPOINT_INTERVAL": "1s"}
    old = ServerProcess(tmp_path / "old", "memory", settings)
    new = ServerProcess(tmp_path / "new", "memory", settings)
    with ended(old, new):
        old.start()
        project = old.call("POST", "/api/projects", {"name": "wanted"})["id"]
        write(old, project, "old")
        old.call("POST", f"/api/projects/{project}/checkpoints")
        old.kill()
        recover(new.home, store)
        new.start()
        write(new, project, "new")
        new.call("POST", f"/api/projects/{project}/checkpoints")
        taken = heads(store)
        old.start()
        with pytest.raises(urllib.error.HTTPError):
            old.call("POST", f"/api/projects/{project}/checkpoints")
        found = old.call("GET", f"/api/projects/{project}")
        assert (found["phase"], found["state_reason"]) == ("error", "owned_elsewhere")
        assert heads(store) == taken
