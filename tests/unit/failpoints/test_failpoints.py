"""Failpoints: known by name, without effect unless armed, deadly where they are."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from anyon import failpoints
from anyon.domain.errors import InvalidInputError

SOURCE = Path(__file__).parents[3] / "src" / "anyon"
CALL = re.compile(r"\breached\(\s*([^)]*?)\s*\)")
PROGRAM = """
import sys
from anyon.failpoints import arm, reached
arm(sys.argv[1])
for passing in range(1, 4):
    reached("stop.recorded")
    print(passing, flush=True)
"""


def named_in(texts: list[str]) -> list[str]:
    """Return the names that *texts* pass to ``reached``, each as often as it is passed."""
    return [name for text in texts for name in CALL.findall(text)]


def run(wish: str) -> tuple[int, str]:
    """Run a program that passes one point three times; its exit code, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, wish],
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(SOURCE.parent)},
    )
    return done.returncode, done.stdout


def test_each_point_is_in_the_source_once_and_each_call_is_known() -> None:
    """The list of points and the calls in the source agree, so a sweep over the list leaves none out."""
    paths = [path for path in SOURCE.rglob("*.py") if path.name != "failpoints.py"]
    found = named_in([path.read_text() for path in paths])
    assert sorted(found) == sorted(f'"{name}"' for name in failpoints.POINTS)


def test_the_scan_sees_a_call_that_is_not_in_the_list() -> None:
    """The comparison above is not blind: a new call, also one broken over lines, is found."""
    found = named_in(
        ['x()\n    reached("new.one")\n', 'reached(\n    "new.two"\n)', "reached(name)"]
    )
    assert found == ['"new.one"', '"new.two"', "name"]


@pytest.mark.parametrize(
    ("wish", "code", "printed"),
    [
        ("", 0, "1\n2\n3\n"),
        ("stop.thawed", 0, "1\n2\n3\n"),
        ("stop.recorded", -signal.SIGKILL, ""),
        ("stop.recorded:3", -signal.SIGKILL, "1\n2\n"),
        ("stop.recorded:4", 0, "1\n2\n3\n"),
    ],
)
def test_an_armed_point_kills_at_its_nth_passing(wish: str, code: int, printed: str) -> None:
    """Unarmed points do nothing; the armed one kills by KILL, at the passing that was asked for."""
    assert run(wish) == (code, printed)


@pytest.mark.parametrize("wish", ["stop.nothing", "stop.recorded:0", "stop.recorded:x", ":2"])
def test_an_unknown_point_is_refused(wish: str) -> None:
    """A wish that names no point is refused, so that a sweep over a misspelt one does not pass."""
    with pytest.raises(InvalidInputError, match="no failpoint") as caught:
        failpoints.arm(wish)
    assert caught.value.code == "unknown_failpoint"
