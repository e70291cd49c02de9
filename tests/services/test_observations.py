"""What a scrape tells is what the engine and the records show at that moment."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError, EngineUnavailableError, NotFoundError
from anyon.domain.ids import LOCAL_USER, ProjectId
from anyon.domain.states import Goal, Phase
from anyon.services.disks import Disks
from anyon.services.observations import Observations, unsaved_for
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.telemetry import CLASSES, Metrics
from anyon.testing.clocks import FakeClock
from anyon.testing.store_faults import FaultyStore
from anyon.testing.worlds import World, living

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Lost:
    """An engine that can be taken away."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.is_lost = False
        self.hangs = False
        self.looks = 0

    async def list(self) -> Any:
        """Answer, or not."""
        self.looks += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.is_lost:
            raise EngineUnavailableError("it does not answer")
        return await self._engine.list()

    async def stats(self, project: ProjectId) -> Any:
        """Answer as the engine does."""
        return await self._engine.stats(project)


@dataclass
class Scraped:
    """A world, and what Prometheus would read of it."""

    world: World
    clock: FakeClock
    metrics: Metrics
    engine: Lost
    observations: Observations
    disks: Disks
    failing: set[str]
    """Which calls the store refuses now."""

    async def value(self, series: str) -> float | None:
        """Scrape, more than a second after the last time, and return one value."""
        await self.clock.advance(timedelta(seconds=2))
        await self.observations.refresh()
        found = re.search(rf"^{re.escape(series)} (\S+)$", self.metrics.text(), re.MULTILINE)
        return float(found[1]) if found else None


@pytest.fixture
async def scraped(tmp_path: Path) -> AsyncIterator[Scraped]:
    """A server over the memory engine whose time the test owns."""
    clock, metrics = FakeClock(), Metrics()
    failing: set[str] = set()
    store = FaultyStore(MemoryStore(), lambda _, name, is_after: name in failing and not is_after)
    checkpoints = Checkpoints(store, cache=tmp_path / "cache", clock=clock)
    changes = {"clock": clock, "checkpoints": checkpoints, "metrics": metrics}
    async with living(tmp_path / "home", **changes) as world:
        engine = Lost(world.engine)
        disks = Disks(
            db=world.db,
            homes=world.services.homes,
            clock=clock,
            server_id=world.services.server_id,
        )
        observations = Observations(
            db=world.db,
            engine=engine,  # type: ignore[arg-type] # it is only looked at
            leases=world.services.leases,
            places=world.services.places,
            disks=disks,
            archives=world.services.archives,
            metrics=metrics,
            clock=clock,
            home=tmp_path,
            server_id=world.services.server_id,
            patience=timedelta(seconds=2),
        )
        yield Scraped(world, clock, metrics, engine, observations, disks, failing)
    await checkpoints.close()


async def test_the_engine_has_the_last_word(scraped: Scraped) -> None:
    """A container that is stopped or removed behind the server's back is told as that at once."""
    project = await scraped.world.project()
    running = 'anyon_containers_total{status="running"}'
    stopped = 'anyon_containers_total{status="stopped"}'
    assert (await scraped.value(running), await scraped.value(stopped)) == (1, 0)
    await scraped.world.engine.stop(project.id, grace=timedelta(0))
    assert (await scraped.value(running), await scraped.value(stopped)) == (0, 1)
    await scraped.world.engine.remove(project.id)
    assert (await scraped.value(running), await scraped.value(stopped)) == (0, 0)


async def test_a_lost_engine_costs_its_own_numbers_only(scraped: Scraped) -> None:
    """The scrape succeeds and says so; the records are told all the same."""
    await scraped.world.project()
    scraped.engine.is_lost = True
    assert await scraped.value("anyon_engine_up") == 0
    assert await scraped.value('anyon_containers_total{status="running"}') is None
    assert await scraped.value('anyon_projects{phase="running"}') == 1
    scraped.engine.is_lost, scraped.engine.hangs = False, True
    assert await scraped.value("anyon_engine_up") == 0
    scraped.engine.hangs = False
    assert await scraped.value("anyon_engine_up") == 1


async def test_scrapes_in_quick_succession_cost_one_look(scraped: Scraped) -> None:
    """Several Prometheus servers, or an impatient one, do not multiply the work."""
    for _ in range(5):
        await scraped.observations.refresh()
    assert scraped.engine.looks == 1
    await scraped.value("anyon_engine_up")
    assert scraped.engine.looks == 2


async def test_idle_containers_are_those_that_nobody_holds(scraped: Scraped) -> None:
    """A held container is not idle, however long ago anything happened in it."""
    project = await scraped.world.project()
    await scraped.clock.advance(6 * MINUTE)
    series = 'anyon_idle_containers_total{idle_duration="5m_to_30m"}'
    assert await scraped.value(series) == 1
    async with scraped.world.services.leases.hold(project.id, holder="x", reason="terminal"):
        assert await scraped.value(series) == 0
        assert await scraped.value('anyon_leases{reason="terminal"}') == 1


async def test_a_process_is_counted_once_and_goes_with_its_project(scraped: Scraped) -> None:
    """Its run time appears under its project; after the deletion nothing of the project is told."""
    world = scraped.world
    project = await world.project()
    attempt = await world.attempt(project, "true")
    await world.over(attempt)
    labels = f'{{project_id="{project.id}",status="completed"}}'
    assert await scraped.value(f"anyon_container_exec_duration_seconds_count{labels}") == 1
    assert await scraped.value('anyon_task_start_seconds_count{tier="running"}') == 1
    assert await scraped.value('anyon_wake_seconds_count{tier="new"}') == 1
    await world.services.projects.delete(LOCAL_ACTOR, project.id)
    assert await scraped.value('anyon_projects{phase="running"}') == 0
    assert project.id not in scraped.metrics.text()


async def test_the_age_of_unsaved_work_grows_until_a_save(scraped: Scraped) -> None:
    """It counts from the last save while there is new work, and is 0 when all is saved."""
    world, archives = scraped.world, scraped.world.services.archives
    assert archives is not None
    project = await world.project()
    await scraped.clock.advance(5 * MINUTE)
    assert 300 <= (await scraped.value("anyon_checkpoint_age_seconds") or 0) < 400
    await archives.save(project, reason="asked")
    assert await scraped.value("anyon_checkpoint_age_seconds") == 0
    assert await scraped.value('anyon_checkpoint_duration_seconds_count{reason="asked"}') == 1
    assert (await scraped.value('anyon_checkpoint_new_bytes_total{reason="asked"}') or 0) > 0
    assert (await scraped.value('anyon_checkpoint_class_new_bytes_total{class="idle"}') or 0) > 0
    async with world.services.leases.hold(project.id, holder="x", reason="terminal"):
        age = await scraped.value("anyon_checkpoint_age_seconds")
        assert (age or 0) > 0
        classes = [
            await scraped.value(f'anyon_checkpoint_class_age_seconds{{class="{name}"}}')
            for name in CLASSES
        ]
        assert (classes[0] or 0) >= (age or 0)
        assert classes[1:] == [0, 0]
        await archives.save(project, reason="asked")
    saves = "anyon_checkpoint_class_duration_seconds_count"
    counts = [await scraped.value(f'{saves}{{class="{name}"}}') for name in CLASSES]
    assert counts == [1, 1, 0]


async def test_a_failed_save_is_counted_whatever_it_failed_at(scraped: Scraped) -> None:
    """Where the store is away from the first call on, and where it goes away later; by reason and by class."""
    archives = scraped.world.services.archives
    assert archives is not None
    project = await scraped.world.project()
    by_reason = 'anyon_checkpoint_failures_total{reason="asked"}'
    by_class = 'anyon_checkpoint_class_failures_total{class="idle"}'
    assert (await scraped.value(by_reason), await scraped.value(by_class)) == (0, 0)
    for number, calls in enumerate((("put", "get", "head", "list"), ("put",)), start=1):
        scraped.failing |= set(calls)
        with pytest.raises(AnyonError):
            await archives.save(project, reason="asked")
        assert await scraped.value(by_reason) == number
        assert await scraped.value(by_class) == number
        scraped.failing.clear()
        await archives.save(project, reason="asked")
        workspace = scraped.world.services.homes.trees(project)["workspace"]
        (workspace / "new").write_bytes(b"x" * 1000)
    assert await scraped.value('anyon_checkpoint_duration_seconds_count{reason="asked"}') == 2


async def test_a_restore_that_cannot_begin_is_counted(scraped: Scraped) -> None:
    """A store that is away before it says what to restore is a failed restore; an id that is not there is none."""
    archives = scraped.world.services.archives
    assert archives is not None
    project = await scraped.world.project()
    await archives.save(project, reason="asked")
    failures = 'anyon_restore_failures_total{reason="wake"}'
    with pytest.raises(NotFoundError):
        await archives.bring_back(project, "00000000-no-such")
    assert await scraped.value(failures) == 0
    scraped.failing |= {"get", "head", "list"}
    with pytest.raises(AnyonError):
        await archives.bring_back(project, None)
    assert await scraped.value(failures) == 1
    scraped.failing.clear()
    await archives.bring_back(project, None)
    assert await scraped.value('anyon_restore_duration_seconds_count{reason="wake"}') == 1
    assert await scraped.value(failures) == 1


def project_in(phase: Phase, **more: Any) -> Project:
    """Return a project that was made, and last active, long ago."""
    long_ago = NOW - timedelta(days=9)
    project = Project(
        id=ProjectId("p"),
        user_id=LOCAL_USER,
        name="p",
        path="",
        goal=Goal.RUNNING,
        phase=phase,
        phase_since=long_ago,
        last_active_at=long_ago,
        created_at=long_ago,
        updated_at=long_ago,
    )
    return replace(project, **more)


UNSAVED = [
    ("archived has nothing here", project_in(Phase.ARCHIVED), None, False, 0),
    ("not known: since the server began", project_in(Phase.RUNNING), None, False, 10),
    ("frozen by an earlier life, which saved it", project_in(Phase.FROZEN), None, False, 0),
    ("a stop that could not save", project_in(Phase.STOPPED_UNSAVED), None, False, 10),
    ("saved, and idle since", project_in(Phase.RUNNING), NOW - 3 * MINUTE, False, 0),
    ("saved, and held", project_in(Phase.RUNNING), NOW - 3 * MINUTE, True, 3),
    (
        "saved, and active since",
        project_in(Phase.RUNNING, last_active_at=NOW - MINUTE),
        NOW - 3 * MINUTE,
        False,
        3,
    ),
]


@pytest.mark.parametrize(
    ("project", "saved_at", "is_held", "minutes"),
    [pytest.param(*case[1:], id=case[0]) for case in UNSAVED],
)
def test_how_old_unsaved_work_is(
    project: Project, saved_at: datetime | None, is_held: bool, minutes: int
) -> None:
    """Work is unsaved from the last save on, if there has been any since."""
    age = unsaved_for(project, saved_at=saved_at, is_held=is_held, began=NOW - 10 * MINUTE, now=NOW)
    assert age == minutes * MINUTE


async def test_a_server_tells_of_its_own_projects(scraped: Scraped) -> None:
    """With several servers on one database no project is told twice."""
    await scraped.world.project()
    assert await scraped.value('anyon_projects{phase="running"}') == 1
    scraped.observations._server_id = "another"
    assert await scraped.value('anyon_projects{phase="running"}') == 0


async def test_what_a_container_uses_is_told_while_it_is_in_memory(scraped: Scraped) -> None:
    """A stopped container uses nothing and has no series; with the labels off none has any."""
    project = await scraped.world.project()
    series = f'anyon_container_pids{{project_id="{project.id}"}}'
    assert (await scraped.value(series) or 0) > 0
    scraped.metrics.per_project = False
    assert await scraped.value(series) is None
    scraped.metrics.per_project = True
    await scraped.world.engine.stop(project.id, grace=timedelta(0))
    assert await scraped.value(series) is None


async def test_the_disk_of_a_project_is_told_until_it_goes(scraped: Scraped) -> None:
    """What was written is measured at the loop's next round, and forgotten with the project."""
    project = await scraped.world.project()
    series = f'anyon_project_disk_bytes{{project_id="{project.id}"}}'
    assert await scraped.value(series) is None
    workspace = scraped.world.services.homes.trees(project)["workspace"]
    await scraped.disks.tick()
    before = await scraped.value(series) or 0
    (workspace / "large").write_bytes(b"x" * 300_000)
    await scraped.disks.tick()
    assert (await scraped.value(series) or 0) - before >= 300_000
    owner = f'anyon_project_info{{project_id="{project.id}",user_id="{project.user_id}"}}'
    assert await scraped.value(owner) == 1
    await scraped.world.services.projects.delete(LOCAL_ACTOR, project.id)
    await scraped.disks.tick()
    assert await scraped.value(series) is None
    assert project.id not in scraped.metrics.text()


async def test_a_sleeping_project_is_measured_once(scraped: Scraped) -> None:
    """With 500 projects asleep the loop reads no directory."""
    project = await scraped.world.project()
    await scraped.world.services.containers.record(project.id, Phase.FROZEN, reason="idle")
    await scraped.disks.tick()
    first = scraped.disks.used[project.id]
    workspace = scraped.world.services.homes.trees(project)["workspace"]
    (workspace / "unseen").write_bytes(b"x" * 300_000)
    await scraped.disks.tick()
    assert scraped.disks.used[project.id] == first


async def test_what_users_write_is_no_label(scraped: Scraped) -> None:
    """All holds are one series, whatever their reasons say: labels stay bounded, words stay private."""
    project = await scraped.world.project()
    for words in ("my own words", "and others"):
        await scraped.world.services.holds.take(
            LOCAL_ACTOR, project.id, reason=words, length=timedelta(hours=1)
        )
    assert await scraped.value('anyon_leases{reason="hold"}') == 2
    assert "my own words" not in scraped.metrics.text()


async def test_the_number_of_series_does_not_grow_with_what_was(scraped: Scraped) -> None:
    """Projects that came, worked and went leave no series behind; the control: while there they have some."""

    async def count() -> int:
        await scraped.disks.tick()
        await scraped.value("anyon_engine_up")
        return len(scraped.metrics.text().splitlines())

    first = await scraped.world.project("first")
    await scraped.world.over(await scraped.world.attempt(first, "true"))
    await scraped.world.services.projects.delete(LOCAL_ACTOR, first.id)
    before = await count()
    others = [await scraped.world.project(f"p{number}") for number in range(3)]
    for project in others:
        await scraped.world.over(await scraped.world.attempt(project, "true"))
    assert await count() >= before + 3 * 10
    for project in others:
        await scraped.world.services.projects.delete(LOCAL_ACTOR, project.id)
    assert await count() == before
