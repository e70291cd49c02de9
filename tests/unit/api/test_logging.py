"""Logs are one line an event, whatever stands in the values."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys, structlog
from anyon.telemetry import configure_logging
configure_logging("info", sys.argv[1])
structlog.get_logger("x").info("thing.happened", name="a\\nlevel='error' forged\\x1b[2J")
structlog.get_logger("x").debug("thing.hidden")
logging.getLogger("library").warning("said %s", "one\\ntwo")
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger("x").exception("thing.failed")
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_value_forges_a_line(form: str) -> None:
    """Newlines and controls are escaped, libraries' records too, and stdout stays free."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, form],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PYTHONPATH": "src"},
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 3, done.stderr
    assert done.stdout == ""
    assert "\x1b" not in done.stderr
    assert "ZeroDivisionError" in lines[2]
    if form == "json":
        assert json.loads(lines[0])["event"] == "thing.happened"
