"""What is announced as the next step down is what the decision will take."""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.domain.test_life import PROJECT

from anyon.domain.life import Facts, Tiers, next_step, next_step_down
from anyon.domain.states import Phase

TIERS = Tiers()
OFF = Tiers(freeze_after=timedelta(0), stop_after=timedelta(0), archive_after=timedelta(0))


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.FROZEN, Phase.STOPPED])
def test_the_announced_step_is_taken_at_its_time_and_not_before(phase: Phase) -> None:
    """At the announced time the decision is that very step; a moment earlier there is none."""
    project = replace(PROJECT, phase=phase)
    coming = next_step_down(project, tiers=TIERS)
    assert coming is not None
    step, at = coming
    facts = Facts(phase=phase)
    taken = next_step(project, facts=facts, tiers=TIERS, now=at)
    assert taken is not None
    assert taken.step is step
    before = at - timedelta(microseconds=1)
    assert next_step(project, facts=facts, tiers=TIERS, now=before) is None


@pytest.mark.parametrize("phase", list(Phase))
def test_nothing_is_announced_with_every_tier_off(phase: Phase) -> None:
    """A tier of 0 is off, and not announced."""
    assert next_step_down(replace(PROJECT, phase=phase), tiers=OFF) is None


def test_a_tier_that_is_off_is_passed_over() -> None:
    """Without freezing, a running project's next step is the stop."""
    tiers = replace(TIERS, freeze_after=timedelta(0))
    coming = next_step_down(replace(PROJECT, phase=Phase.RUNNING), tiers=tiers)
    assert coming is not None
    assert coming[0] == "stop"
