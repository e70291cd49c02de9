"""Events go when they are old, but never what is looked up among them, nor a project's last ones."""

from collections import Counter
from datetime import timedelta

from sqlalchemy import select

from anyon.clock import SystemClock
from anyon.db import events as event_rows
from anyon.db.schema import events
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.domain.ids import ProjectId
from anyon.services.events import EventRetention
from anyon.services.projects import NewProject
from anyon.telemetry import Metrics
from anyon.testing.worlds import World

DAY = timedelta(days=1)


async def note(world: World, project: ProjectId, kind: str, *, days_ago: int, times: int) -> None:
    """Record that something happened so often so long ago."""
    at = SystemClock().now() - days_ago * DAY

    def add_all(connection: object) -> None:
        for _ in range(times):
            event_rows.add(connection, project, kind, at)  # type: ignore[arg-type] # a Connection

    await world.db.write(add_all)


async def kinds(world: World, project: Project) -> Counter[str]:
    """Return how many events of each kind there are of a project."""
    query = select(events.c.kind).where(events.c.project_id == project.id)
    return Counter(
        await world.db.read(lambda connection: connection.execute(query).scalars().all())
    )


def retention(world: World, metrics: Metrics, *, keep: timedelta) -> EventRetention:
    """Return what keeps the last five of each project, and removes two in a batch."""
    return EventRetention(
        db=world.db,
        clock=SystemClock(),
        metrics=metrics,
        server_id=world.services.server_id,
        keep=keep,
        last=5,
        batch=2,
    )


async def test_old_events_go_in_batches_and_are_counted(world: World) -> None:
    """What is older than the time goes, a project's last five, each kind's last and its creation stay."""
    metrics = Metrics()
    project = await world.services.projects.create(LOCAL_ACTOR, NewProject(name="demo"))
    other = await world.services.projects.create(LOCAL_ACTOR, NewProject(name="other"))
    was_there = await kinds(world, project)
    await note(world, project.id, "restore.proven", days_ago=300, times=3)
    await note(world, project.id, "checkpoint.saved", days_ago=200, times=7)
    await note(world, project.id, "project.frozen", days_ago=1, times=3)
    await note(world, other.id, "checkpoint.saved", days_ago=200, times=2)
    before_other = await kinds(world, other)
    await retention(world, metrics, keep=90 * DAY).tick()
    assert await kinds(world, project) == was_there + Counter(
        {"restore.proven": 1, "checkpoint.saved": 2, "project.frozen": 3}
    )
    assert await kinds(world, other) == before_other
    assert "anyon_events_pruned_total 7.0" in metrics.text()
    await retention(world, metrics, keep=90 * DAY).tick()
    assert "anyon_events_pruned_total 7.0" in metrics.text()


async def test_nothing_goes_where_all_is_to_be_kept(world: World) -> None:
    """0 keeps every event for ever."""
    project = await world.services.projects.create(LOCAL_ACTOR, NewProject(name="demo"))
    await note(world, project.id, "checkpoint.saved", days_ago=4000, times=20)
    await retention(world, Metrics(), keep=timedelta(0)).tick()
    assert (await kinds(world, project))["checkpoint.saved"] == 20


async def test_who_reads_on_from_an_event_that_went_misses_none_that_is_there(world: World) -> None:
    """Sequence numbers stay as they were: a client reads on after the one that it saw last."""
    project = await world.services.projects.create(LOCAL_ACTOR, NewProject(name="demo"))
    await note(world, project.id, "checkpoint.saved", days_ago=200, times=9)
    seen = await world.services.outlooks.events(LOCAL_ACTOR, project.id)
    await retention(world, Metrics(), keep=DAY).tick()
    await note(world, project.id, "project.frozen", days_ago=0, times=1)
    after = await world.services.outlooks.events(LOCAL_ACTOR, project.id, after=seen[-1].sequence)
    assert [one.kind for one in after] == ["project.frozen"]
