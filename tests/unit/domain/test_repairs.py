"""The record follows what the engine shows; nothing is called saved that nobody saved."""

import pytest

from anyon.domain.repairs import repair
from anyon.domain.states import ExitReason, Phase

SEEN = [Phase.RUNNING, Phase.FROZEN, Phase.STOPPED, Phase.ABSENT]


@pytest.mark.parametrize("seen", SEEN)
def test_what_agrees_is_left_alone(seen: Phase) -> None:
    """A record that says what is seen needs no repair."""
    assert repair(seen, seen) is None


@pytest.mark.parametrize("recorded", [Phase.RUNNING, Phase.FROZEN, Phase.STOPPING])
def test_a_container_that_stopped_without_us_is_unsaved(recorded: Phase) -> None:
    """No checkpoint is known of it, so it is stopped_unsaved, and its processes have ended."""
    found = repair(recorded, Phase.STOPPED)
    assert found is not None
    assert found.phase is Phase.STOPPED_UNSAVED
    assert found.ended is ExitReason.CONTAINER_STOPPED


@pytest.mark.parametrize("recorded", [Phase.RUNNING, Phase.FROZEN, Phase.STOPPED])
def test_a_container_that_was_removed_is_absent(recorded: Phase) -> None:
    """What ran in it is lost, and the next work makes it again."""
    found = repair(recorded, Phase.ABSENT)
    assert found is not None
    assert (found.phase, found.ended) == (Phase.ABSENT, ExitReason.MACHINE_LOST)


@pytest.mark.parametrize(
    "recorded", [Phase.STOPPED, Phase.STOPPED_UNSAVED, Phase.ABSENT, Phase.FROZEN]
)
def test_a_container_that_was_started_outside_is_running(recorded: Phase) -> None:
    """It counts as running, so that the idle times apply to it again."""
    found = repair(recorded, Phase.RUNNING)
    assert found is not None
    assert (found.phase, found.ended) == (Phase.RUNNING, None)


def test_an_interrupted_stop_is_told_apart() -> None:
    """A server that died while stopping leaves a reason that says so."""
    found = repair(Phase.STOPPING, Phase.RUNNING)
    assert found is not None
    assert found.reason == "stop_interrupted"


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize(
    "recorded", [Phase.CREATING, Phase.DELETING, Phase.RESTORING, Phase.ARCHIVING]
)
def test_what_is_in_other_hands_is_left_alone(recorded: Phase, seen: Phase) -> None:
    """A transition has somebody who carries it out and a deadline; the repair keeps away."""
    assert repair(recorded, seen) is None


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("recorded", list(Phase))
def test_one_repair_is_enough(recorded: Phase, seen: Phase) -> None:
    """A repaired record needs no second repair: the reconciler comes to rest."""
    found = repair(recorded, seen)
    if found is not None:
        assert repair(found.phase, seen) is None
