"""``anyon monitoring render`` as an operator runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from anyon.cli.sessions import ExitCode


def render(out: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, without a server."""
    bare = {key: value for key, value in os.environ.items() if not key.startswith("ANYON_")}
    command = "from anyon.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", command, "monitoring", "render", "--out", str(out), *argv],
        env={**bare, "HOME": "/nonexistent", "PYTHONPATH": str(Path("src").absolute()), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_it_can_be_repeated_and_refuses_what_was_changed(tmp_path: Path) -> None:
    """Created, unchanged, then a conflict that names the changed file; --force overwrites it."""
    outcomes = []
    for _ in range(2):
        done = render(tmp_path, "--json")
        assert done.returncode == 0, done.stderr
        outcomes.append({one["outcome"] for one in json.loads(done.stdout)["files"]})
    assert outcomes == [{"created"}, {"unchanged"}]
    rules = tmp_path / "prometheus" / "rules.yml"
    rules.write_text("groups: []\n")
    refused = render(tmp_path, "--json")
    assert refused.returncode == ExitCode.CONFLICT
    error = json.loads(refused.stderr)["error"]
    assert error["code"] == "file_not_ours"
    assert "prometheus/rules.yml" in error["message"]
    assert rules.read_text() == "groups: []\n"
    assert render(tmp_path, "--force").returncode == 0
    assert "AnyonServerDown" in rules.read_text()


@pytest.mark.parametrize(
    ("settings", "target", "has_token"),
    [
        ({}, "localhost:8080", False),
        ({"ANYON_PORT": "9999", "ANYON_REQUIRE_TOKENS": "true"}, "localhost:9999", True),
        ({"ANYON_HOST": "0.0.0.0"}, "localhost:8080", True),
        ({"ANYON_HOST": "box.example"}, "box.example:8080", True),
    ],
)
def test_it_follows_the_settings(
    tmp_path: Path, settings: dict[str, str], target: str, has_token: bool
) -> None:
    """The server's address and whether it asks for a token come from the settings."""
    done = render(tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    config = (tmp_path / "prometheus" / "prometheus.yml").read_text()
    assert f'"{target}"' in config
    assert ('credentials_file: "token"' in config) is has_token
    assert ("scope read" in done.stdout) is has_token


def test_a_bad_address_is_told(tmp_path: Path) -> None:
    """Nothing is written, and the error says what is wanted."""
    done = render(tmp_path / "out", "--target", "http://box:8080/")
    assert done.returncode == ExitCode.ERROR
    assert "[bad_address]" in done.stderr
    assert "host:port" in done.stderr
    assert not (tmp_path / "out").exists()
