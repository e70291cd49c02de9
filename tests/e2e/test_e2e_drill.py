"""The loss of a machine, short: the command kills, deletes, recovers and judges."""

import json
import subprocess
from pathlib import Path

import pytest

from anyon.testing.servers import ANYON

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]


def test_a_machine_is_lost(tmp_path: Path) -> None:
    """Work goes on elsewhere from a state that is of one instant and not older than allowed."""
    command = [ANYON, "drill", "machine-loss", "--projects", "2", "--interval", "1"]
    options = ["--rpo", "40", "--engine", "bubblewrap", "--in", str(tmp_path), "--json"]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(done.stdout)["projects"]
    assert [one["is_mixture"] for one in found] == [False, False]
    assert all(one["generation"] > 0 for one in found)
    assert list(tmp_path.iterdir()) == []
