"""Whatever happens in whatever order, the guarantees on a project's life hold."""

import logging
import os
from collections.abc import Iterator, Sequence

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.lifecycle.life_machine import LifeMachine

from anyon.domain import states
from anyon.domain.entities import Lease, Project
from anyon.engines.memory import MemoryEngine
from anyon.services.containers import Containers
from anyon.services.leases import Leases
from anyon.services.steps import Steps

STEPS = 50
SOAK = os.environ.get("ANYON_SOAK")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Say nothing of what is meant to go wrong."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


def live(steps: int, *, at_random: bool = False, phases: Sequence[Phase] = tuple(Phase)) -> None:
    """Let the machine take so many steps."""
    run_state_machine_as_test(
        LifeMachine,
        settings=settings(
            max_examples=max(1, steps // STEPS),
            stateful_step_count=STEPS,
            derandomize=not at_random,
            database=None,
            deadline=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(0 if SOAK else 300)
def test_the_guarantees_hold_in_any_order() -> None:
    """No lease is slept under, nothing is called stopped unsaved, and all that was acknowledged comes back.

    2,000 steps, always the same; ``./test soak STEPS`` takes as many as it is told, at random.
    """
    live(int(SOAK or "2000"), at_random=bool(SOAK))


async def _no_leases(_: Leases) -> Sequence[Lease]:
    return ()


async def _called_stopped(steps: Steps, project: Project) -> None:
    await steps._containers.record(project.id, states.Phase.STOPPED, reason="saved")


async def _never_confirmed(*_: object, **__: object) -> None:
    return


@pytest.mark.skipif(bool(SOAK), reason="a negative control of the machine, not a soak")
@pytest.mark.parametrize(
    ("owner", "name", "broken", "words"),
    [
        (Leases, "all_held", _no_leases, "with a lease"),
        (Steps, "_save_stopped", _called_stopped, "lost|not what was written|no checkpoint"),
        (MemoryEngine, "remove", _never_confirmed, "has a container"),
        (Containers, "_bring_files_back", _never_confirmed, "lost"),
    ],
)
def test_the_machine_sees_what_is_broken(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, broken: object, words: str
) -> None:
    """With one promise broken the same steps fail: the machine is not blind."""
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(Exception, match=words):
        live(2000, phases=[Phase.generate])
