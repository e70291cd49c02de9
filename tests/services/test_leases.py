"""Leases and the claim of a server on its projects."""

import asyncio
from datetime import timedelta

import pytest

from anyon.clock import SystemClock
from anyon.db import leases as lease_rows
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.errors import ConflictError
from anyon.services.leases import SPARE, Leases
from anyon.services.supervisors import Supervisor
from anyon.testing.worlds import World, until


async def test_a_held_lease_is_renewed(world: World) -> None:
    """A lease that is held outlives its TTL many times; one that nobody renews counts for nothing."""
    project = await world.project()
    supervisor, clock = Supervisor(), SystemClock()
    ttl = timedelta(seconds=0.6)
    leases = Leases(world.db, clock, supervisor, server_id=world.services.server_id, ttl=ttl)
    async with leases.hold(project.id, holder="h", reason="r") as lease:

        async def was_renewed() -> bool:
            found = await world.db.read(lease_rows.all_valid, clock.now())
            return bool(found) and found[0].expires_at > lease.expires_at + ttl

        await until(was_renewed)
        await supervisor.close()  # the heart stops: a server that was killed

        async def is_over() -> bool:
            return await world.db.read(lease_rows.all_valid, clock.now()) == []

        await until(is_over)


async def test_two_servers_never_act_on_one_project(world: World) -> None:
    """While one server acts on a project another is refused; after the claim's end it may take over."""
    project = await world.project()
    supervisor = Supervisor()
    other = Leases(
        world.db, SystemClock(), supervisor, server_id="other", ttl=timedelta(seconds=60)
    )
    with pytest.raises(ConflictError) as caught:
        async with other.hold(project.id, holder="h", reason="r"):
            pass
    assert caught.value.code == "owned_elsewhere"
    late = _Ahead(timedelta(minutes=10))
    other = Leases(world.db, late, supervisor, server_id="other", ttl=timedelta(seconds=60))
    async with other.hold(project.id, holder="h", reason="r"):
        with pytest.raises(ConflictError):
            await world.services.processes.exec(LOCAL_ACTOR, project.id, ["true"])
    await supervisor.close()


class _Ahead(SystemClock):
    """A clock that is ahead."""

    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self):
        """Return the time, ahead."""
        return super().now() + self._ahead


async def test_supervisors_end_what_they_started() -> None:
    """At its close a supervisor cancels and awaits all its tasks, also those that start others at their end."""
    supervisor = Supervisor()
    ended: list[str] = []

    async def child(name: str) -> None:
        try:
            await asyncio.sleep(600)
        finally:
            ended.append(name)

    tasks = [supervisor.spawn(child(str(number)), name="child") for number in range(3)]
    await asyncio.sleep(0)
    await supervisor.close()
    await supervisor.close()
    assert sorted(ended) == ["0", "1", "2"]
    assert all(task.cancelled() for task in tasks)


async def test_finish_outlives_its_caller() -> None:
    """Work whose caller is cancelled goes on to its end: nothing is left half done."""
    supervisor = Supervisor()
    go_on, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        done.set()

    caller = asyncio.create_task(supervisor.finish(work(), name="work"))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    go_on.set()
    async with asyncio.timeout(30):
        await done.wait()


async def test_the_servers_own_chore_is_waited_for_and_work_is_told(world: World) -> None:
    """Who asks for work finds none while a worktree is made ahead, and finds real work at once."""
    project, leases = await world.project(), world.services.leases
    begun = asyncio.Event()

    async def chore() -> None:
        async with leases.hold(project.id, holder=SPARE, reason="spare"):
            begun.set()
            await asyncio.sleep(0.3)

    making = asyncio.create_task(chore())
    await begun.wait()
    assert SPARE in [one.holder for one in await leases.of(project.id)]
    assert await leases.of_work(project.id) == []
    await making
    async with leases.hold(project.id, holder="process", reason="agent"):
        assert "process" in [one.holder for one in await leases.of_work(project.id)]
