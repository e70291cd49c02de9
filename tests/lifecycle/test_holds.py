"""Holds keep a project awake until their end and no longer; a project's own times come before the server's."""

from datetime import timedelta

import pytest
from tests.lifecycle.conftest import Life

from anyon.db import leases as lease_rows
from anyon.domain.actors import LOCAL_ACTOR, Actor
from anyon.domain.entities import Lease, Project
from anyon.domain.errors import InvalidInputError, NotFoundError
from anyon.domain.ids import LeaseId, UserId, new_id
from anyon.domain.states import Phase
from anyon.services.projects import ProjectChanges

MINUTE = timedelta(minutes=1)


async def change(life: Life, project: Project, changes: ProjectChanges) -> None:
    """Change a project."""
    await life.world.services.projects.update(LOCAL_ACTOR, project.id, changes)


async def test_a_hold_lasts_until_its_end_without_a_heart(life: Life) -> None:
    """A hold wakes, keeps awake far past every idle time with no heartbeat, and counts for nothing after its end."""
    project = await life.world.project()
    await life.pass_time(31 * MINUTE)
    assert await life.phase(project) is Phase.STOPPED
    holds = life.world.services.holds
    lease = await holds.take(
        LOCAL_ACTOR, project.id, reason="a demo  at noon", length=timedelta(hours=2)
    )
    assert lease.reason == "a demo at noon"
    for _ in range(3):
        await life.pass_time(35 * MINUTE)
        assert await life.phase(project) is Phase.RUNNING
    await life.pass_time(15 * MINUTE)
    assert await life.phase(project) is Phase.STOPPED


async def test_a_released_hold_holds_nothing(life: Life) -> None:
    """After its release the project is idle from then on; only holds can be released, once, by whom it is theirs."""
    project = await life.world.project()
    services = life.world.services
    lease = await services.holds.take(LOCAL_ACTOR, project.id, reason="r", length=timedelta(days=7))
    await life.pass_time(60 * MINUTE)
    stranger = Actor(UserId(new_id()))
    with pytest.raises(NotFoundError) as caught:
        await services.holds.release(stranger, project.id, lease.id)
    assert caught.value.code == "project_unknown"
    await services.holds.release(LOCAL_ACTOR, project.id, lease.id)
    await life.pass_time(4 * MINUTE)
    assert await life.phase(project) is Phase.RUNNING
    await life.pass_time(MINUTE)
    assert await life.phase(project) is Phase.FROZEN
    async with services.containers.awake(project, holder="work", reason="test") as work:
        for unknown in (lease.id, work.id, LeaseId(new_id())):
            with pytest.raises(NotFoundError) as caught:
                await services.holds.release(LOCAL_ACTOR, project.id, unknown)
            assert caught.value.code == "hold_unknown"


async def test_a_hold_outlives_its_server(life: Life) -> None:
    """The next life of a server finds the hold: it is a row with an end, not a promise of a process."""
    project = await life.world.project()
    await life.world.services.holds.take(
        LOCAL_ACTOR, project.id, reason="r", length=timedelta(hours=1)
    )
    reborn = await life.world.reborn()
    await reborn.services.recover()
    await life.clock.advance(59 * MINUTE)
    (lease,) = await reborn.services.leases.of(project.id)
    assert lease.reason == "r"
    await life.clock.advance(2 * MINUTE)
    assert await reborn.services.leases.of(project.id) == []
    await reborn.end()


@pytest.mark.parametrize(
    ("reason", "length", "code"),
    [
        (" \n", MINUTE, "reason_missing"),
        ("r" * 201, MINUTE, "too_long"),
        ("r", timedelta(0), "bad_length"),
        ("r", timedelta(days=7, seconds=1), "bad_length"),
    ],
)
async def test_a_senseless_hold_is_refused(
    life: Life, reason: str, length: timedelta, code: str
) -> None:
    """A hold has a reason and an end within 7 days; without them nothing is held."""
    project = await life.world.project()
    with pytest.raises(InvalidInputError) as caught:
        await life.world.services.holds.take(LOCAL_ACTOR, project.id, reason=reason, length=length)
    assert caught.value.code == code
    assert await life.world.services.leases.of(project.id) == []


async def test_a_project_has_times_of_its_own(life: Life) -> None:
    """A project with its own times steps down by them, others by the server's; None gives the server's back."""
    quick, plain = await life.world.project("quick"), await life.world.project("plain")
    own = ProjectChanges(freeze_after=0, stop_after=120)
    await change(life, quick, own)
    await life.pass_time(MINUTE)
    assert await life.phase(quick) is Phase.RUNNING
    await life.pass_time(MINUTE)
    assert await life.phase(quick) is Phase.STOPPED
    assert await life.phase(plain) is Phase.RUNNING
    await change(life, plain, ProjectChanges(freeze_after=0, stop_after=0))
    await life.pass_time(timedelta(days=2))
    assert await life.phase(plain) is Phase.RUNNING
    await change(life, plain, ProjectChanges(freeze_after=None))
    await life.pass_time(MINUTE)
    assert await life.phase(plain) is Phase.FROZEN
    with pytest.raises(InvalidInputError, match="3650"):
        await change(life, plain, ProjectChanges(stop_after=-1))


async def test_the_lease_of_a_dead_server_ends_by_itself(life: Life) -> None:
    """While it lasts it holds and is listed; expired it counts for nothing, though its row is there."""
    project = await life.world.project()
    now = life.clock.now()
    lease = Lease(
        id=LeaseId(new_id()),
        project_id=project.id,
        holder="a process of a server that is gone",
        reason="command",
        created_at=now,
        expires_at=now + timedelta(minutes=7),
    )
    await life.world.db.write(lease_rows.add, lease)
    await life.pass_time(timedelta(minutes=6))
    assert await life.phase(project) is Phase.RUNNING
    outlooks = life.world.services.outlooks
    assert [it.id for it in (await outlooks.of(LOCAL_ACTOR, project.id)).leases] == [lease.id]
    await life.pass_time(timedelta(minutes=2))
    assert await life.phase(project) is Phase.FROZEN
    assert (await outlooks.of(LOCAL_ACTOR, project.id)).leases == []
