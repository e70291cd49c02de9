"""A server may be killed at any step of any act: the next one brings database, engine and disk to agree.

Within 10 s from its first answer; `ANYON_SHARED_MACHINE=1` allows a minute where others compute beside it.
"""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.docker_fixtures import socket_or_skip
from tests.faults.failpoint_scenarios import SCENARIOS
from tests.faults.failpoint_stages import WITHIN
from tests.faults.sweep_failpoints import UNSAFE

from anyon.failpoints import POINTS

ROOT = Path(__file__).parents[2]
FULL = bool(os.environ.get("ANYON_FAILPOINTS"))
ENGINES = ("bubblewrap", "docker")
TURNS = 4
"""In the short form each engine gets another fourth of the points each day, so that two days try all;
of the stories that take long each fourth day one on one."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(engine: str, top: Path, *words: str) -> str:
    """Run the sweep in a process without threads, as servers are forked from it; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.sweep_failpoints", engine, str(top), *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "src:."},
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    return done.stdout


def points_of(engine: str, *, is_full: bool, day: int) -> list[str]:
    """Return the points that a run tries on *engine*; the short form tries each on one engine, every other day."""
    both = [name for name, scenario in SCENARIOS.items() if len(scenario.engines) == 2]
    turn = (day + ENGINES.index(engine) * TURNS // 2) % TURNS
    due = {name for number, name in enumerate(both) if number % TURNS == turn}
    found = [name for name, scenario in SCENARIOS.items() if engine in scenario.engines]
    if is_full:
        return found
    long = [name for name, scenario in SCENARIOS.items() if scenario.is_long]
    later = {name for number, name in enumerate(long) if number % TURNS != day % TURNS}
    mine = [name for name in found if name not in both or name in due]
    return [name for name in mine if name not in later]


def test_each_point_has_a_scenario() -> None:
    """A new point without a story in which a server dies at it fails here, and each has one engine at least."""
    assert sorted(SCENARIOS) == sorted(POINTS)
    assert [name for name, scenario in SCENARIOS.items() if not scenario.engines] == []


def test_the_short_form_leaves_no_point_out() -> None:
    """In two days every point whose story is short is tried on one engine, in four every one on every engine."""
    days = [
        [(engine, p) for engine in ENGINES for p in points_of(engine, is_full=False, day=day)]
        for day in range(TURNS)
    ]
    short = {name for name, scenario in SCENARIOS.items() if not scenario.is_long}
    assert len(short) > len(POINTS) * 0.8
    for day, before in zip(days, (days[-1], *days), strict=False):
        tried = [point for _, point in day]
        assert len(tried) == len(set(tried))
        assert short <= {*tried, *(point for _, point in before)}
    everything = {(engine, p) for engine in ENGINES for p in points_of(engine, is_full=True, day=0)}
    assert {pair for day in days for pair in day} == everything


@pytest.mark.parametrize("engine", ENGINES)
def test_each_death_is_survived(tmp_path: Path, engine: str) -> None:
    """Killed at a point and started again, a server needs no help: all agree, nothing acknowledged is lost."""
    if engine == "docker":
        socket_or_skip()
    points = points_of(engine, is_full=FULL, day=datetime.now(UTC).toordinal())
    word, count, longest = run(engine, tmp_path, *points).split()[-3:]
    print(f"{engine}: {count} points, agreed after {longest} s at the most")
    assert (word, int(count)) == ("ok", len(points))
    assert float(longest) <= WITHIN


@pytest.mark.parametrize("name", UNSAFE)
def test_a_wrong_order_of_steps_is_seen(tmp_path: Path, name: str) -> None:
    """With two steps in the wrong order a death between them leaves what the look finds: it is not blind."""
    assert "found " in run("bubblewrap", tmp_path, "unsafe", name)
