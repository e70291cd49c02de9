"""The command line against a real server in a process of its own, as a user types it."""

import fcntl
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

MAIN = [sys.executable, "-c", "from anyon.cli.main import main; main()"]
DEADLINE = 90


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Machine:
    """A home, a server that can be started and stopped, and the command line beside it."""

    home: Path
    options: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    serving: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What every command is run with."""
        bare = {key: value for key, value in os.environ.items() if not key.startswith("ANYON_")}
        return bare | {
            "HOME": str(self.home),
            "PYTHONPATH": str(Path("src").absolute()),
            "ANYON_HOME": str(self.home / "anyon"),
            "ANYON_PORT": str(self.port),
            "ANYON_ENGINE": "memory",
            "ANYON_DEFAULT_AGENT": "SHELL",
            **self.options,
        }

    def start(self) -> None:
        """Serve, and wait until it answers."""
        log = (self.home / "server.log").open("ab")
        self.serving = subprocess.Popen([*MAIN, "serve"], env=self.environment, stderr=log)
        until = time.monotonic() + DEADLINE
        while self.anyon("project", "list", check=False).returncode != 0:
            assert self.serving.poll() is None, (self.home / "server.log").read_text()
            assert time.monotonic() < until, (self.home / "server.log").read_text()
            time.sleep(0.1)

    def stop(self) -> int:
        """End the server kindly and return its exit code."""
        assert self.serving is not None
        self.serving.send_signal(signal.SIGTERM)
        return self.serving.wait(DEADLINE)

    def anyon(
        self, *argv: str, check: bool = True, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        done = subprocess.run(
            [*MAIN, *argv],
            env=self.environment,
            capture_output=True,
            text=True,
            input=text if text is not None else "",
            timeout=DEADLINE,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert not check or done.returncode == 0, done.stderr
        return done

    def json(self, *argv: str) -> Any:
        """Run a command and return the one document on its stdout."""
        return json.loads(self.anyon(*argv, "--json").stdout)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine whose server runs."""
    one = Machine(tmp_path)
    one.start()
    yield one
    assert one.stop() == 0, (tmp_path / "server.log").read_text()


def test_the_main_job_by_hand(machine: Machine) -> None:
    """Create, start, follow, look, merge, run, delete: every command, with and without --json."""
    project = machine.json("project", "create", "shop")["id"]
    words = "echo 안녕; echo hi > hi.txt"
    task = machine.json("task", "create", "shop", words, "--title", "Say hi", "--start")["id"]
    followed = machine.anyon("task", "logs", "-f", task[:8])
    assert followed.stdout == "안녕\n"
    assert "codingagent" in followed.stderr
    assert machine.json("task", "list", "shop")[0]["status"] == "inreview"
    shown = machine.json("task", "show", task)
    assert shown["attempts"][0]["processes"][0]["status"] == "completed"
    assert "+hi" in machine.anyon("task", "diff", task).stdout
    assert machine.json("task", "diff", task)[0]["newPath"] == "hi.txt"
    assert "1 files changed, +1 -0" in machine.anyon("task", "diff", task, "--stat").stdout
    assert machine.json("task", "logs", task)["processes"][0]["stdout"] == "안녕\n"
    assert len(machine.json("task", "merge", task)["commit"]) == 40
    words = "say 안녕\nrun echo x"
    said = machine.json("task", "create", "shop", words, "--agent", "scripted", "--start")["id"]
    assert "안녕" in machine.anyon("task", "logs", "-f", said).stdout.splitlines()
    assert '"type"' in machine.anyon("task", "logs", "--raw", said).stdout
    ran = machine.anyon(
        "exec",
        "shop",
        "--env",
        "X=y",
        "--",
        "sh",
        "-c",
        "cat hi.txt; echo $X >&2; exit 3",
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, "hi\n", "y\n")
    fed = machine.anyon("exec", "shop", "--stdin", "--", "cat", text="from outside")
    assert fed.stdout == "from outside"
    assert machine.json("project", "show", project[:8])["name"] == "shop"
    assert project in machine.anyon("project", "list").stdout
    machine.anyon("project", "delete", "shop", "--yes")
    assert machine.json("project", "list") == []


def test_errors_have_their_exit_codes(machine: Machine) -> None:
    """Not found is 4, a conflict 5, bad input 1; each with its stable code on stderr, nothing on stdout."""
    machine.anyon("project", "create", "shop")
    task = machine.json("task", "create", "shop", "sleep 600", "--start")["id"]
    for argv, exit_code, code in (
        (["project", "show", "nothing"], 4, "not_found"),
        (["task", "show", "00000000-0000-4000-8000-00000000dead"], 4, "task_unknown"),
        (["project", "create", "shop"], 5, "name_taken"),
        (["task", "start", task], 5, "attempt_running"),
        (["project", "create", "a/b"], 1, "name_path_like"),
        (["task", "create", "shop", "x", "--start", "--agent", "nobody"], 1, "agent_unknown"),
    ):
        done = machine.anyon(*argv, check=False)
        assert (done.returncode, done.stdout) == (exit_code, ""), (argv, done.stderr)
        assert f"[{code}]" in done.stderr
    machine.anyon("task", "stop", task)
    processes = machine.json("task", "show", task)["attempts"][0]["processes"]
    assert processes[0]["status"] == "killed"


def test_tags_and_images_by_hand(machine: Machine, tmp_path: Path) -> None:
    """Tags are added, found, edited and removed; images attached, seen by the agent, listed, detached."""
    made = machine.json("tag", "add", "버그", "steps")
    machine.anyon("tag", "add", "review", "-", text="look\nclosely")
    assert [one["tag_name"] for one in machine.json("tag", "list")] == ["review", "버그"]
    assert "look closely" in machine.anyon("tag", "list", "REV").stdout
    changed = machine.json("tag", "edit", "버그", "more", "--name", "bug")
    assert (changed["id"], changed["tag_name"], changed["content"]) == (made["id"], "bug", "more")
    assert machine.json("tag", "rm", "bug")["id"] == made["id"]
    missing = machine.anyon("tag", "rm", "bug", check=False)
    assert (missing.returncode, "[not_found]" in missing.stderr) == (4, True)
    machine.anyon("project", "create", "shop")
    files = [tmp_path / "화면 1.png", tmp_path / "b.svg"]
    files[0].write_bytes(b"\x89PNG\r\n\x1a\n")
    files[1].write_bytes(b"<svg/>")
    task = machine.json("task", "create", "shop", "cat .vibe-images/*.svg")["id"]
    shown = machine.anyon("task", "attach", task[:8], *map(str, files)).stdout.splitlines()
    assert [line.startswith("![") for line in shown] == [True, True]
    images = machine.json("task", "images", task)
    assert [one["original_name"] for one in images] == ["화면 1.png", "b.svg"]
    assert images[0]["file_path"] in machine.anyon("task", "images", task).stdout
    machine.anyon("task", "start", task)
    assert machine.anyon("task", "logs", "-f", task).stdout == "<svg/>"
    assert machine.json("task", "detach", task, "b.svg", "--delete")["id"] == images[1]["id"]
    assert machine.json("task", "images", task) == images[:1]
    described = machine.json("task", "create", "shop", "look at this:\n")["id"]
    [same] = machine.json("task", "attach", described, str(files[0]), "--describe")
    assert same["id"] == images[0]["id"]
    words = machine.json("task", "show", described)["task"]["description"]
    assert words == f"look at this:\n\n![화면 1.png]({same['file_path']})"
    files[1].write_bytes(b"no image")
    refused = machine.anyon("task", "attach", task, str(files[1]), check=False)
    assert (refused.returncode, "[image_unreadable]" in refused.stderr) == (1, True)
    assert (
        machine.anyon("task", "attach", task, str(tmp_path / "none"), check=False).returncode == 2
    )


def test_a_hold_and_a_projects_times_by_hand(machine: Machine) -> None:
    """A hold is told by ``why``, outlives the server and is released; times are set and given back."""
    machine.anyon("project", "create", "shop", "--setup", "true")
    lease = machine.json("project", "hold", "shop", "--reason", "a demo", "--for", "2h")
    assert machine.stop() == 0
    machine.start()
    shown = machine.anyon("project", "why", "shop").stdout
    assert "a demo" in shown
    assert lease["id"] in shown
    assert machine.json("project", "release", "shop") == {"released": [lease["id"]]}
    assert "a demo" not in machine.anyon("project", "why", "shop").stdout
    changed = machine.json("project", "set", "shop", "--stop-after", "2h", "--archive-after", "0")
    assert (changed["stop_after"], changed["archive_after"]) == (7200, 0)
    assert changed["setup_script"] == "true"
    said = machine.anyon("project", "set", "shop", "--stop-after", "default").stdout
    assert "stop after: the server's" in said
    assert "archive after: never" in said


def test_logs_go_on_over_a_restart_of_the_server(tmp_path: Path) -> None:
    """A follower that loses its connection goes on where it was: every line once, in order."""
    machine = Machine(tmp_path, options={"ANYON_ENGINE": "bubblewrap"})
    machine.start()
    try:
        machine.anyon("project", "create", "shop")
        script = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; sleep 0.2; done"
        task = machine.json("task", "create", "shop", script, "--start")["id"]
        shown, errors = tmp_path / "shown", tmp_path / "errors"
        with shown.open("wb") as out, errors.open("wb") as err:
            following = subprocess.Popen(
                [*MAIN, "task", "logs", "-f", task], env=machine.environment, stdout=out, stderr=err
            )
        until = time.monotonic() + DEADLINE
        while b"line 3" not in shown.read_bytes():
            assert time.monotonic() < until, errors.read_text()
            time.sleep(0.05)
        assert machine.stop() == 0
        machine.start()
        assert following.wait(DEADLINE) == 0, errors.read_text()
        assert shown.read_text() == "".join(f"line {number}\n" for number in range(1, 41))
        machine.anyon("project", "delete", "shop", "--yes")
    finally:
        assert machine.stop() == 0


def test_a_terminal_is_raw_and_follows_the_size(machine: Machine) -> None:
    """``project shell`` hands keys on as they are, tells the size and its changes, and ends as the shell does."""
    machine.anyon("project", "create", "shop")
    ours, theirs = pty.openpty()
    set_size(theirs, rows=21, columns=77)
    shell = subprocess.Popen(
        # A terminal has its window's signals for the session that it controls.
        ["setsid", "--ctty", "--wait", *MAIN, "project", "shell", "shop"],
        env=machine.environment | {"TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    screen = Screen(ours)
    screen.until("workspace")  # the prompt
    os.write(ours, b"stty size; echo 'st'arted\r")
    screen.until("started")
    assert "21 77" in screen.text
    set_size(ours, rows=31, columns=99)
    os.write(ours, b"sleep 0.5; stty size; echo 're'sized; sleep 600\r")
    screen.until("resized")
    assert "31 99" in screen.text
    os.write(ours, b"\x03")  # Ctrl-C is the program's, not ours
    os.write(ours, b"echo 'go'ing on; exit 5\r")
    screen.until("going on")
    assert shell.wait(DEADLINE) == 5
    os.close(ours)


class Screen:
    """What a terminal has shown."""

    def __init__(self, fd: int) -> None:
        self.text = ""
        self._fd = fd
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                self.text += os.read(self._fd, 65536).decode(errors="replace")
            except OSError:
                return

    def until(self, word: str) -> None:
        """Wait until *word* is shown."""
        end = time.monotonic() + DEADLINE
        while word not in self.text:
            assert time.monotonic() < end, self.text
            time.sleep(0.05)


def set_size(fd: int, *, rows: int, columns: int) -> None:
    """Give a terminal its size."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def test_a_server_with_tokens_serves_its_own_machine_and_nobody_else(tmp_path: Path) -> None:
    """This machine's command line finds its key in the home; others need a token that it made."""
    machine = Machine(tmp_path, options={"ANYON_REQUIRE_TOKENS": "true"})
    machine.start()
    try:
        secret = machine.json("token", "create", "laptop", "--expires", "1d")["secret"]
        assert (tmp_path / "anyon" / "token").stat().st_mode & 0o777 == 0o600
        away = ["--server", f"http://127.0.0.1:{machine.port}"]
        refused = machine.anyon(*away, "project", "list", check=False)
        assert refused.returncode == 6
        assert "[token_required]" in refused.stderr
        machine.options["ANYON_TOKEN"] = secret
        assert machine.anyon(*away, "project", "list", "--json").stdout == "[]\n"
        [token] = [one for one in machine.json("token", "list") if one["name"] == "laptop"]
        machine.anyon("token", "revoke", token["id"])
        assert machine.anyon(*away, "project", "list", check=False).returncode == 6
    finally:
        assert machine.stop() == 0
