"""The log is kept for support: as JSON, bounded, for its owner only."""

import json
import stat
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import logging, sys, structlog
from pathlib import Path
from anyon.telemetry import configure_logging
configure_logging("info", "console", kept_in=Path(sys.argv[1]), kept_bytes=int(sys.argv[2]))
for number in range(int(sys.argv[3])):
    structlog.get_logger("anyon.x").info("thing.happened", number=number)
logging.getLogger("library").warning("said %s", "one\\ntwo")
"""


def run(path: Path, kept: int, lines: int) -> str:
    """Log in a process of its own and return what it said on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), str(kept), str(lines)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PYTHONPATH": "src"},
    )
    return done.stderr


def test_lines_are_kept_with_their_loggers(tmp_path: Path) -> None:
    """Each is one JSON object; stderr has them too, in the form that is set there."""
    path = tmp_path / "logs" / "server.log"
    words = run(path, 1_000_000, 2)
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(one["event"], one["logger"]) for one in kept] == [
        ("thing.happened", "anyon.x"),
        ("thing.happened", "anyon.x"),
        ("said one\ntwo", "library"),
    ]
    assert len(words.splitlines()) == 3
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_their_size_is_bounded(tmp_path: Path) -> None:
    """The oldest go; the last are always there."""
    path = tmp_path / "server.log"
    run(path, 20_000, 1000)
    files = sorted(tmp_path.iterdir())
    assert [one.name for one in files] == ["server.log", "server.log.1"]
    assert sum(one.stat().st_size for one in files) <= 20_500
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in files)
    assert json.loads(path.read_text().splitlines()[-1])["logger"] == "library"


FULL = """
import os, resource, signal, structlog, sys
from pathlib import Path
from anyon.telemetry import configure_logging
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
configure_logging("info", "console", kept_in=Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
for number in range(20):
    structlog.get_logger("anyon.x").info("thing.happened", number=number)
"""


def test_a_log_that_cannot_be_kept_is_on_stderr_all_the_same(tmp_path: Path) -> None:
    """A full disk costs the kept copy, and nothing else is said for it."""
    path = tmp_path / "server.log"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PYTHONPATH": "src"},
    )
    assert path.stat().st_size <= 200
    assert [line.count("thing.happened") for line in done.stderr.splitlines()] == [1] * 20
