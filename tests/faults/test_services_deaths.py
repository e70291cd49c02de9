"""The server may die anywhere: what it had begun is finished, once, by its next life."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_SERVER = Path(__file__).with_name("dying_server.py")
_LEAST = 25
"""How many places to die the main job has at the least; else the sweep has gone blind."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_death_is_survived(tmp_path: Path) -> None:
    """Killed before or after any of its writes, or while an agent prints, a server loses nothing.

    The next life finds either nothing of a project or all of it, runs each link of a chain once,
    has each byte of output, one container, and can finish the job and delete everything.
    """
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run(
        [sys.executable, _SERVER, tmp_path],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source)},
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    word, deaths = done.stdout.split()[-2:]
    assert word == "ok"
    assert int(deaths) >= 2 * _LEAST
