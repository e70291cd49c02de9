"""Which projects are restored for proof: a pure decision."""

from datetime import UTC, datetime, timedelta

import pytest

from anyon.domain.ids import ProjectId
from anyon.domain.proofs import chosen, last_night

NOW = datetime(2030, 5, 5, 12, 0, tzinfo=UTC)
OLD = NOW - timedelta(days=90)
A, B, C = ProjectId("a"), ProjectId("b"), ProjectId("c")


@pytest.mark.parametrize(
    ("hour", "wanted"),
    [
        (3, datetime(2030, 5, 5, 3, tzinfo=UTC)),
        (12, NOW),
        (13, datetime(2030, 5, 4, 13, tzinfo=UTC)),
    ],
)
def test_the_last_night(hour: int, wanted: datetime) -> None:
    """It is today's hour if that was already, else yesterday's."""
    assert last_night(NOW, hour) == wanted


def test_who_was_never_tried_comes_first_then_the_longest_ago() -> None:
    """All projects have their turn, however many there are."""
    tried = {A: NOW - timedelta(days=2), B: NOW - timedelta(days=5)}
    made = [(A, OLD), (B, OLD), (C, OLD)]
    assert chosen(made, tried, now=NOW, hour=3, most=2) == [C, B]
    assert chosen(made, tried, now=NOW, hour=3, most=9) == [C, B, A]


def test_a_round_is_made_once_a_night() -> None:
    """What was tried since the hour counts against the night's number, and is not tried again."""
    tried = {A: NOW - timedelta(hours=1)}
    made = [(A, OLD), (B, OLD), (C, OLD)]
    assert chosen(made, tried, now=NOW, hour=3, most=2) == [B]
    assert chosen(made, tried, now=NOW, hour=3, most=1) == []


def test_a_young_project_waits_for_its_first_night() -> None:
    """A server that has just begun proves nothing in the middle of the day."""
    assert chosen([(A, NOW - timedelta(hours=2))], {}, now=NOW, hour=3, most=3) == []
    assert chosen([(A, NOW - timedelta(hours=20))], {}, now=NOW, hour=3, most=3) == [A]
