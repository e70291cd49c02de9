"""The plan's default: a project is stopped after 30 idle minutes, looked at every 5 at least; no test waits for it."""

from datetime import timedelta
from pathlib import Path

import pytest
from tests.lifecycle.conftest import begun

from anyon.config import load
from anyon.domain.life import Tiers
from anyon.domain.states import Phase

PLAN_STOP, PLAN_LOOK = timedelta(minutes=30), timedelta(minutes=5)
DEFAULTS = load({"HOME": "/nowhere"})


def test_the_defaults_are_the_plans() -> None:
    """30 minutes to the stop; a look is cheap, so it comes each 15 s, and a stop is that much late at the most."""
    assert DEFAULTS.stop_after == PLAN_STOP
    assert DEFAULTS.reconcile_interval == timedelta(seconds=15) < PLAN_LOOK
    assert Tiers() == Tiers(
        freeze_after=DEFAULTS.freeze_after,
        stop_after=DEFAULTS.stop_after,
        archive_after=DEFAULTS.archive_after,
    )


@pytest.mark.parametrize("every", [DEFAULTS.reconcile_interval, PLAN_LOOK])
async def test_it_is_stopped_at_the_first_look_after_its_time(
    tmp_path: Path, every: timedelta
) -> None:
    """With our looks and with the plan's: not a second before its time, and one look after it at the latest."""
    tiers = Tiers(freeze_after=DEFAULTS.freeze_after, stop_after=DEFAULTS.stop_after)
    async with begun(tmp_path, tiers=tiers) as life:
        project = await life.world.project()
        begin = life.clock.now()
        await life.clock.advance(timedelta(seconds=7))  # work does not end in step with the looks
        while await life.phase(project) in {Phase.RUNNING, Phase.FROZEN}:
            assert life.clock.now() - begin < PLAN_STOP + every
            await life.pass_time(every)
        assert await life.phase(project) is Phase.STOPPED
        assert PLAN_STOP <= life.clock.now() - begin < PLAN_STOP + every


async def test_a_look_just_before_its_time_stops_nothing(tmp_path: Path) -> None:
    """The control of the former: a millisecond less than 30 minutes is not enough, and one more is."""
    tiers = Tiers(freeze_after=timedelta(0), stop_after=DEFAULTS.stop_after)
    async with begun(tmp_path, tiers=tiers) as life:
        project = await life.world.project()
        await life.pass_time(PLAN_STOP - timedelta(milliseconds=1))
        assert await life.phase(project) is Phase.RUNNING
        await life.pass_time(timedelta(milliseconds=1))
        assert await life.phase(project) is Phase.STOPPED
