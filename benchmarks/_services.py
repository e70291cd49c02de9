"""Services that benchmarks need, started by the scripts that the tests use."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

_SCRIPTS = Path(__file__).parents[1] / "scripts/services"


def start(services: Iterable[str]) -> None:
    """Start each, or install it; what cannot be had is said, and the benchmark says what it lacks for that."""
    for service in services:
        script = _SCRIPTS / f"{service}.sh"
        done = subprocess.run([script, "start"], stdout=sys.stderr, check=False)
        if done.returncode:
            print(f"warning: {script.name} failed; what to do stands above", file=sys.stderr)
