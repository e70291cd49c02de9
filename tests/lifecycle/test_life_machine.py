"""Whatever happens in whatever order, the guarantees on a project's life hold."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import structlog
from hypothesis import Phase
from tests.lifecycle.life_machine import LifeMachine
from tests.lifecycle.soak import LENGTH, live, quiet

from anyon.db import looks as look_rows
from anyon.domain import states
from anyon.domain.entities import Lease, Project
from anyon.engines.memory import MemoryEngine
from anyon.services.containers import Containers
from anyon.services.deletions import Deletions
from anyon.services.leases import Leases
from anyon.services.steps import Steps

STEPS = 2000


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Say nothing of what is meant to go wrong."""
    before = structlog.get_config()
    quiet()
    yield
    structlog.configure(**before)


@pytest.mark.timeout(300)
def test_the_guarantees_hold_in_any_order() -> None:
    """No lease is slept under, nothing is called stopped unsaved, and all that was acknowledged comes back.

    2,000 steps at the least, always the same; ``./test soak STEPS`` takes as many as it is told,
    at random.
    """
    before = LifeMachine.steps
    live(STEPS // LENGTH * 5 // 4, at_random=False, phases=list(Phase))
    assert LifeMachine.steps - before >= STEPS


async def _no_leases(_: Leases) -> Sequence[Lease]:
    return ()


async def _called_stopped(steps: Any, _: Project) -> bool:
    # Neither the save before the container's stop is made, nor the one after it.
    async def call(project: Project) -> None:
        await steps._containers.record(project.id, states.Phase.STOPPED, reason="saved")

    steps._save_stopped = call
    return True


async def _never_confirmed(*_: object, **__: object) -> None:
    return


async def _hasty(deletions: Deletions) -> None:
    window, deletions._window = deletions._window, timedelta(0)
    await PURGE(deletions)
    deletions._window = window


PURGE = Deletions.purge


@asynccontextmanager
async def _waking(containers: Containers, project: Project) -> AsyncIterator[bool]:
    await containers.ensure(project)
    yield True


def _remembered(*_: object) -> None:
    return


@pytest.mark.parametrize(
    ("owner", "name", "broken", "words"),
    [
        (Leases, "all_held", _no_leases, "with a lease"),
        (Steps, "_save_stopping", _called_stopped, "lost|not what was written|no checkpoint"),
        (MemoryEngine, "remove", _never_confirmed, "has a container"),
        (Containers, "_bring_files_back", _never_confirmed, "lost"),
        (Deletions, "purge", _hasty, "too soon|record is gone"),
        (Containers, "look", _waking, "for a look"),
        (look_rows, "forget", _remembered, "not so any more"),
    ],
)
def test_the_machine_sees_what_is_broken(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, broken: object, words: str
) -> None:
    """With one promise broken the same steps fail: the machine is not blind."""
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(Exception, match=words):
        live(2 * STEPS // LENGTH, at_random=False, phases=[Phase.generate])
