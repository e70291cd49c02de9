"""What ``anyon status`` shows of a project."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from anyon.cli.statuses import COLUMNS, headline, row, words
from anyon.sdk.statuses import ProjectStatus, Status

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def project(**changes: object) -> ProjectStatus:
    """Return a project that sleeps, all of it saved."""
    facts: dict[str, object] = {
        "id": UUID(int=1),
        "name": "shop",
        "goal": "running",
        "phase": "stopped",
        "phase_since": NOW - timedelta(hours=3),
        "reason": "idle",
        "last_active_at": NOW - timedelta(hours=3),
        "tasks": {},
        "processes": 0,
        "leases": {},
        "saved_at": NOW - timedelta(hours=3),
        "unsaved_seconds": 0.0,
        "next_step": "archive",
        "next_step_at": NOW + timedelta(days=6, hours=2),
        "position": None,
    }
    return ProjectStatus.model_validate(facts | changes)


def test_a_sleeping_project() -> None:
    """It says since when, how old its saved state is, and what comes next."""
    shown = dict(zip(COLUMNS, row(project(), NOW), strict=True))
    assert shown == {
        "project": "shop",
        "phase": "stopped",
        "for": "3h",
        "tasks": "-",
        "runs": "0",
        "held by": "-",
        "unsaved": "0s",
        "saved": "3h ago",
        "next": "archive in 6d 2h",
    }


def test_a_project_at_work() -> None:
    """Tasks by what they wait for, holders by reason, and nothing comes next while it is held."""
    busy = project(
        phase="running",
        tasks={"inprogress": 2, "inreview": 1, "done": 7},
        processes=2,
        leases={"codingagent": 2, "terminal": 1},
        unsaved_seconds=75,
        next_step=None,
        next_step_at=None,
    )
    shown = dict(zip(COLUMNS, row(busy, NOW), strict=True))
    assert shown["tasks"] == "2 at work, 1 in review"
    assert shown["held by"] == "codingagent x2, terminal"
    assert (shown["unsaved"], shown["next"]) == ("1m 15s", "-")


def test_a_project_that_waits_or_keeps_no_checkpoints() -> None:
    """Its place in the line; a dash where nothing is known."""
    waits = project(position=2, saved_at=None, unsaved_seconds=None)
    shown = dict(zip(COLUMNS, row(waits, NOW), strict=True))
    assert (shown["next"], shown["saved"], shown["unsaved"]) == ("waits, place 2", "-", "-")


def test_the_headline_sums_up() -> None:
    """How many projects in which phase, and the oldest work that could be lost."""
    found = Status(
        version="1", at=NOW, projects=[project(), project(phase="running", unsaved_seconds=90)]
    )
    line = "anyon 1: 2 projects: 1 running, 1 stopped; oldest unsaved work 1m 30s"
    assert headline(found) == line
    assert headline(Status(version="1", at=NOW, projects=[])) == "anyon 1: 0 projects"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0s"), (59.9, "59s"), (60, "1m"), (3700, "1h 1m"), (86400 * 2 + 3600, "2d 1h")],
)
def test_lengths(seconds: float, said: str) -> None:
    """Two units at most, rounded down; a clock that was set back says 0."""
    assert words(timedelta(seconds=seconds)) == said
