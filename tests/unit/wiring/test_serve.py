"""What a server hands down to the programs that it starts."""

import subprocess
import sys

import pytest

CHILD = """
import os, signal, subprocess
signal.signal(signal.SIGHUP, signal.SIG_IGN)
if {hears}:
    from anyon.wiring.serve import hear_ignored_signals
    hear_ignored_signals()
os.kill(os.getpid(), signal.SIGHUP)
print(subprocess.check_output(["grep", "SigIgn", "/proc/self/status"], text=True).split()[1])
"""


@pytest.mark.parametrize(("hears", "ignored"), [(True, 0), (False, 1)])
def test_what_nohup_ignores_ends_with_the_server(hears: bool, ignored: int) -> None:
    """A server under ``nohup`` outlives the hangup and its programs do not ignore it; else they would."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(hears=hears)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout, 16) == ignored
