"""The decision what to do next with a project."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyon.domain.entities import Lease, Project
from anyon.domain.ids import LOCAL_USER, LeaseId, ProjectId
from anyon.domain.life import DEADLINES, Decision, Facts, Step, Tiers, next_step
from anyon.domain.states import Goal, Phase

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIERS = Tiers(
    freeze_after=timedelta(minutes=5),
    stop_after=timedelta(minutes=30),
    archive_after=timedelta(days=7),
)
PROJECT = Project(
    id=ProjectId("p"),
    user_id=LOCAL_USER,
    name="p",
    path="/p",
    phase_since=NOW,
    last_active_at=NOW,
    created_at=NOW,
    updated_at=NOW,
)
LEASE = Lease(
    id=LeaseId("l"),
    project_id=PROJECT.id,
    holder="h",
    reason="r",
    created_at=NOW,
    expires_at=NOW,
)


def decide(
    phase: Phase,
    idle: timedelta = timedelta(0),
    *,
    goal: Goal = Goal.RUNNING,
    leases: tuple[Lease, ...] = (),
    tiers: Tiers = TIERS,
    exists: bool = True,
) -> Decision | None:
    """Return the decision for a project in *phase* after *idle* time."""
    project = replace(PROJECT, goal=goal, phase=phase)
    facts = Facts(phase=phase, leases=leases, exists=exists)
    return next_step(project, facts=facts, tiers=tiers, now=NOW + idle)


MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


@pytest.mark.parametrize(
    ("phase", "idle", "step"),
    [
        (Phase.RUNNING, 4 * MINUTE, None),
        (Phase.RUNNING, 5 * MINUTE, Step.FREEZE),
        (Phase.RUNNING, 30 * MINUTE, Step.STOP),
        (Phase.FROZEN, 29 * MINUTE, None),
        (Phase.FROZEN, 30 * MINUTE, Step.STOP),
        (Phase.STOPPED, 6 * DAY, None),
        (Phase.STOPPED, 7 * DAY, Step.ARCHIVE),
        (Phase.STOPPED_UNSAVED, 0 * DAY, Step.SAVE),
        (Phase.ARCHIVED, 900 * DAY, None),
        (Phase.ERROR, 900 * DAY, None),
        (Phase.ABSENT, 900 * DAY, None),
        (Phase.STOPPING, 4 * MINUTE, None),
        (Phase.STOPPING, 6 * MINUTE, Step.FAIL),
        (Phase.CREATING, 14 * MINUTE, None),
        (Phase.CREATING, 16 * MINUTE, Step.FAIL),
        (Phase.RESTORING, 119 * MINUTE, Step.RESTORE),
        (Phase.RESTORING, 121 * MINUTE, Step.FAIL),
    ],
)
def test_steps_down(phase: Phase, idle: timedelta, step: Step | None) -> None:
    """Each tier comes after its own time, to the minute, and each transition has its deadline."""
    decision = decide(phase, idle)
    assert (decision.step if decision else None) is step


@given(
    phase=st.sampled_from(sorted(set(Phase) - set(DEADLINES))),
    idle=st.timedeltas(timedelta(days=-30), timedelta(days=3000)),
    goal=st.sampled_from([Goal.RUNNING, Goal.STOPPED, Goal.ARCHIVED]),
)
def test_a_held_project_is_woken_and_nothing_else(
    phase: Phase, idle: timedelta, goal: Goal
) -> None:
    """Whatever the clock says and whatever is wanted, a lease keeps a project from any step down.

    It wakes what sleeps, unless that was stopped by name: what is held since before wakes nothing then.
    """
    decision = decide(phase, idle, goal=goal, leases=(LEASE,))
    if goal is not Goal.RUNNING:
        assert decision is None or (decision.step, phase) == (Step.SAVE, Phase.STOPPED_UNSAVED)
        return
    assert decision is None or decision.step is Step.WAKE
    if phase in {Phase.FROZEN, Phase.STOPPED, Phase.STOPPED_UNSAVED, Phase.ARCHIVED, Phase.ABSENT}:
        assert decision is not None


@given(
    phase=st.sampled_from([Phase.RUNNING, Phase.FROZEN, Phase.STOPPED]),
    idle=st.timedeltas(timedelta(days=-30), timedelta(days=3000)),
)
def test_tiers_that_are_off(phase: Phase, idle: timedelta) -> None:
    """A length of zero switches a tier off, for ever; and time that ran backwards steps nothing down."""
    off = Tiers(freeze_after=timedelta(0), stop_after=timedelta(0), archive_after=timedelta(0))
    assert decide(phase, idle, tiers=off) is None
    assert decide(phase, -abs(idle)) is None


@given(phase=st.sampled_from(sorted(Phase)), leases=st.sampled_from([(), (LEASE,)]))
def test_deletion_goes_before_all(phase: Phase, leases: tuple[Lease, ...]) -> None:
    """A deleted project is deleted, held or not, until nothing is left of it."""
    decision = decide(phase, goal=Goal.DELETED, leases=leases)
    assert decision is not None
    assert decision.step is Step.DELETE
    assert decide(phase, goal=Goal.DELETED, leases=leases, exists=False) is None


def test_a_wish_to_stop_needs_no_idleness() -> None:
    """A project that is wanted stopped is stopped at once, and left so."""
    for phase in (Phase.RUNNING, Phase.FROZEN):
        decision = decide(phase, goal=Goal.STOPPED)
        assert decision == Decision(step=Step.STOP, reason="stop_requested")
    assert decide(Phase.STOPPED, goal=Goal.STOPPED) is None


def test_a_wish_to_archive_goes_over_a_stop() -> None:
    """It needs no idleness; what is unsaved is saved first; where files must stay it ends with the stop."""
    asked = [decide(phase, goal=Goal.ARCHIVED) for phase in (Phase.RUNNING, Phase.FROZEN)]
    assert asked == [Decision(step=Step.STOP, reason="archive_requested")] * 2
    unsaved = decide(Phase.STOPPED_UNSAVED, goal=Goal.ARCHIVED)
    assert unsaved == Decision(step=Step.SAVE, reason="unsaved")
    stopped = decide(Phase.STOPPED, goal=Goal.ARCHIVED)
    assert stopped == Decision(step=Step.ARCHIVE, reason="archive_requested")
    assert decide(Phase.ARCHIVED, goal=Goal.ARCHIVED) is None
    assert decide(Phase.STOPPED, goal=Goal.ARCHIVED, tiers=Tiers(can_archive=False)) is None


def test_a_project_never_switches_archiving_on_where_files_must_stay() -> None:
    """A project's own times come before the server's, but for files that may not be let go."""
    own = replace(PROJECT, stop_after=0, archive_after=86400)
    tiers = Tiers(freeze_after=timedelta(minutes=7))
    assert tiers.of(own) == Tiers(
        freeze_after=timedelta(minutes=7),
        stop_after=timedelta(0),
        archive_after=timedelta(days=1),
    )
    fixed = replace(tiers, can_archive=False)
    assert fixed.of(own).archive_after == fixed.of(PROJECT).archive_after == timedelta(0)
