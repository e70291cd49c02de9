"""Completion in real shells: installed as a user installs it, and asked for with the Tab key."""

import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from anyon.testing.servers import ANYON

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PATIENCE_SECONDS = 90.0
PROMPT = "ready>"
BELL = "\a"


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a user who has nothing but Anyon in the path."""
    kept = {"PATH": f"{ANYON.parent}:{os.environ['PATH']}", "LANG": "C.UTF-8", "TERM": "dumb"}
    return {**kept, "HOME": str(home)}


def installed(shell: str, home: Path) -> None:
    """Install the completion from the shell; one that is missing is a skip at home and a failure in CI."""
    if shutil.which(shell) is None:
        reason = f"{shell} is not installed: run scripts/services/shells.sh start"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    command = [shell, "-c", "anyon --install-completion; true"]
    done = subprocess.run(
        command, env=environment(home), capture_output=True, text=True, check=True, timeout=60
    )
    assert f"{shell} completion installed" in done.stdout + done.stderr
    if shell != "fish":
        with (home / f".{shell}rc").open("a") as settings:
            settings.write(f"\nPS1='{PROMPT}'\n")


class Terminal:
    """An interactive shell, typed into."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._seen = ""

    def type(self, text: str) -> None:
        """Type *text*; what was on the screen before does not count any more."""
        self._seen = ""
        os.write(self._master, text.encode())

    def until(self, *texts: str) -> str:
        """Wait until one of *texts* was shown, and return it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (shown := [text for text in texts if text in self._seen]):
            assert time.monotonic() < deadline, f"{texts} was never shown, but {self._seen!r}"
            if select.select([self._master], [], [], 0.2)[0]:
                self._seen += os.read(self._master, 65536).decode(errors="replace")
        return shown[0]

    def complete(self, typed: str, rest: str) -> None:
        """Type, press Tab, and wait for the rest of the word."""
        self.type(f"{typed}\t")
        # In a new zsh the first Tab of all only loads the completion, and rings the bell.
        if self.until(rest, BELL) == BELL:
            self.type("\t")
            self.until(rest)


@contextmanager
def interactive(command: list[str], home: Path) -> Iterator[Terminal]:
    """Run a shell at a terminal of its own for the length of the block."""
    master, slave = pty.openpty()
    try:
        shell = subprocess.Popen(
            command,
            env=environment(home),
            cwd=home,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        try:
            yield Terminal(master)
        finally:
            shell.kill()
            shell.wait()
    finally:
        os.close(master)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_tab_key_completes(shell: str, tmp_path: Path) -> None:
    """After ``anyon --install-completion`` a new shell completes commands, subcommands and options."""
    installed(shell, tmp_path)
    with interactive([shell, "-i"], tmp_path) as terminal:
        terminal.until(PROMPT)
        terminal.complete("anyon pro", "ject ")
        terminal.complete("cre", "ate ")
        terminal.complete("x --clo", "ne ")


def test_fish_completes(tmp_path: Path) -> None:
    """Fish offers commands with their help, and nothing where there is nothing."""
    installed("fish", tmp_path)

    def offered(line: str) -> list[str]:
        done = subprocess.run(
            ["fish", "-c", "complete -C $argv[1]", line],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.splitlines()

    assert [line.split("\t")[0] for line in offered("anyon task l")] == ["list", "logs"]
    assert all("\t" in line for line in offered("anyon task l"))
    assert "--clone" in [line.split("\t")[0] for line in offered("anyon project create --")]
    assert offered("anyon task nothing-like-it") == []
