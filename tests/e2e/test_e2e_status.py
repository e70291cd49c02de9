"""``anyon status`` on a real terminal, and on a pipe."""

import json
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from anyon.testing.servers import ANYON, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def read_until(terminal: int, word: str, *, seconds: float = 90) -> str:
    """Read what a terminal shows until *word* is in it."""
    seen, deadline = "", time.monotonic() + seconds
    while word not in seen:
        assert time.monotonic() < deadline, f"{word!r} did not come: {seen[-500:]!r}"
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 65536).decode(errors="replace")
    return seen


def test_it_shows_what_changes_and_waits_for_a_server_that_is_away(tmp_path: Path) -> None:
    """A new project appears by itself; a restart of the server is sat out; Ctrl-C is a good end."""
    with serving(tmp_path / "home", "memory") as server:
        server.call("POST", "/api/projects", {"name": "first"})
        ours, theirs = pty.openpty()
        command = [str(ANYON), "--server", server.address, "status", "--interval", "0.2"]
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        try:
            read_until(ours, "first")
            server.call("POST", "/api/projects", {"name": "second"})
            read_until(ours, "second")
            server.kill()
            read_until(ours, "does not answer")
            server.start()
            server.call("POST", "/api/projects", {"name": "third"})
            read_until(ours, "third")
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)


def test_on_a_pipe_it_says_it_once(tmp_path: Path) -> None:
    """Plain columns and a line that sums up; with --json one document."""
    with serving(tmp_path / "home", "memory") as server:
        server.call("POST", "/api/projects", {"name": "only"})
        command = [str(ANYON), "--server", server.address, "status"]
        text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        lines = text.stdout.splitlines()
        assert lines[0].split("\t")[:2] == ["PROJECT", "PHASE"]
        assert lines[1].split("\t")[:2] == ["only", "running"]
        assert "1 projects: 1 running" in lines[-1]
        told = subprocess.run(
            [*command, "--json"], capture_output=True, text=True, timeout=60, check=True
        )
        assert [one["name"] for one in json.loads(told.stdout)["projects"]] == ["only"]
