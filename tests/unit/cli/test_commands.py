"""The command line without a server: usage, errors, completion."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from anyon.cli.sessions import ExitCode, exit_code

NOBODY = "http://127.0.0.1:9"  # the discard port: nothing of ours listens there


def anyon(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    bare = {key: value for key, value in os.environ.items() if not key.startswith("ANYON_")}
    return subprocess.run(
        [sys.executable, "-c", "from anyon.cli.main import main; main()", *argv],
        env={**bare, "HOME": "/nonexistent", "PYTHONPATH": str(Path("src").absolute()), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_version_is_one_json_document() -> None:
    """With --json, stdout is one document and nothing else."""
    done = anyon("version", "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"version"}


def test_a_server_that_is_not_there_is_told_with_what_to_do() -> None:
    """No answer: exit code 3, a code and a hint on stderr, nothing on stdout."""
    done = anyon("--server", NOBODY, "project", "list")
    assert done.returncode == ExitCode.UNREACHABLE
    assert done.stdout == ""
    assert "[server_unreachable]" in done.stderr
    assert "anyon serve" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_with_json_is_one_object_on_stderr() -> None:
    """Programs read the code."""
    done = anyon("project", "list", "--json", ANYON_SERVER=NOBODY)
    assert done.returncode == ExitCode.UNREACHABLE
    assert json.loads(done.stderr)["error"]["code"] == "server_unreachable"


@pytest.mark.parametrize(
    "argv",
    [
        ["task"],
        ["nonsense"],
        ["task", "create"],
        ["tag", "add", "x"],
        ["tag", "edit", "x"],
        ["exec", "p", "--env", "X", "--", "ls"],
    ]
    + [["project", *rest] for rest in (["set", "p"], ["hold", "p"], ["set", "p", "--stop-after=x"])]
    + [["project", "hold", "p", "--reason=r", f"--for={time}"] for time in ("8d", "0", "-1h", "h")],
)
def test_wrong_usage_is_exit_code_2(argv: list[str]) -> None:
    """Usage errors are told apart from failures."""
    assert anyon(*argv).returncode == ExitCode.USAGE


def test_a_bad_setting_is_named() -> None:
    """A setting that cannot be is told by name, not by a traceback."""
    done = anyon("serve", ANYON_PORT="many")
    assert done.returncode == ExitCode.USAGE
    assert "port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_completion_script(shell: str) -> None:
    """The script is made and names the program."""
    done = anyon(_ANYON_COMPLETE=f"source_{shell}")
    assert done.returncode == 0, done.stderr
    assert "_ANYON_COMPLETE" in done.stdout


def test_bash_completes_a_subcommand() -> None:
    """``anyon task me<TAB>`` is ``merge``."""
    done = anyon(_ANYON_COMPLETE="complete_bash", COMP_WORDS="anyon task me", COMP_CWORD="2")
    assert done.stdout.split() == ["merge"]


def test_each_kind_of_error_has_its_exit_code() -> None:
    """Scripts tell the kinds apart; what is not listed is a plain error."""
    codes = [exit_code(status) for status in (0, 404, 409, 401, 424, 503, 422, 500)]
    assert codes == [3, 4, 5, 6, 7, 8, 1, 1]
