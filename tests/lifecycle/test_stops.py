"""A stop on the real engines: TERM, the grace, KILL; a checkpoint; and only then no container."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.docker_fixtures import new_engine, socket_or_skip
from tests.lifecycle.conftest import Life, begun, checkpoints_of

from anyon.db import events as event_rows
from anyon.db import projects as project_rows
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.domain.errors import ConflictError
from anyon.domain.ids import LOCAL_USER, ProcessId, ProjectId, new_id
from anyon.domain.states import ExitReason, Goal, Phase, ProcessStatus
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.engine import Channel, ContainerInfo, ContainerState, Engine
from anyon.processes.processes import Exit, ProcessSpec
from anyon.services.archives import place
from anyon.services.steps import Steps
from anyon.testing.worlds import until

GRACE = timedelta(seconds=2)
MINUTE = timedelta(minutes=1)
ENGINES = ["bubblewrap", pytest.param("docker", marks=pytest.mark.docker)]
OBEYS = (
    "trap 'date +%s.%N > told; echo last line; echo last line > last; exit 7' TERM; "
    "echo ready; while :; do sleep 0.05; done"
)
"""Says its last words when it is told to end."""
IGNORES = "trap '' TERM; echo ready; while :; do date +%s.%N >> beat; sleep 0.05; done"
"""Goes on until it is killed."""


@dataclass
class Story:
    """One stop of a project in which two programs run, and what was seen when the container went."""

    life: Life
    project: Project
    obeys: ProcessId
    ignores: ProcessId
    saved_at_stop: list[str | None] = field(default_factory=list)
    phases_at_stop: list[Phase] = field(default_factory=list)

    async def check(self) -> None:
        """The promise of a stop, whole."""
        assert self.saved_at_stop == ["last line\n"], "the container went before the save"
        assert self.phases_at_stop == [Phase.STOPPING], "it was called stopped too soon"
        obeys, ignores = await self.exit(self.obeys), await self.exit(self.ignores)
        assert await self.log(self.obeys) == b"ready\nlast line\n"
        assert obeys.code == 7
        told = _time(Path(self.project.path) / "told")
        assert ignores.at - told >= GRACE - timedelta(milliseconds=300), "killed within the grace"
        beat = _time(Path(self.project.path) / "beat")
        assert beat - told >= GRACE / 3, "it did not live on in its grace"
        assert ignores.code == 128 + 9
        assert await self.life.phase(self.project) is Phase.STOPPED
        assert await self.life.state(self.project) is ContainerState.STOPPED
        assert await saved(self.life, self.project, "last") == "last line\n"

    async def exit(self, process: ProcessId) -> Exit:
        """Return how a program ended."""
        state = await self.life.world.processes.state(self.project.id, process)
        assert state is not None
        assert state.exit is not None, "it still runs"
        return state.exit

    async def log(self, process: ProcessId) -> bytes:
        """Return what a program printed."""
        chunks = self.life.world.processes.follow(self.project.id, process)
        return b"".join([chunk.data async for chunk in chunks if chunk.channel is Channel.STDOUT])


def _time(file: Path) -> datetime:
    whole = file.read_text().rpartition("\n")[0]  # the end of a beat may be missing: it was killed
    return datetime.fromtimestamp(float(whole.rpartition("\n")[2]), UTC)


async def saved(life: Life, project: Project, name: str) -> str | None:
    """Return a file of the workspace as the store has it; None without a checkpoint that has it."""
    archives = life.world.services.archives
    assert archives is not None
    last = await archives.checkpoints.latest(place(project))
    if last is None:
        return None
    data = await archives.checkpoints.read(
        place(project), None, f"workspace/{name}", limit_bytes=1000
    )
    return data.decode()


@asynccontextmanager
async def real(tmp_path: Path, kind: str) -> AsyncIterator[tuple[Life, Project]]:
    """Give a server over a real engine, and a project that is not saved yet."""
    engine: Engine = (
        BubblewrapEngine(tmp_path / "engine", hidden=[tmp_path])
        if kind == "bubblewrap"
        else new_engine(socket_or_skip())
    )
    owner = (1000, 1000) if kind == "docker" else None
    async with begun(tmp_path, engine=engine, files_owner=owner, stop_grace=GRACE) as life:
        project = await life.world.project("real")
        try:
            yield life, project
        finally:
            await life.world.services.containers.remove(project.id)


async def begin(life: Life, project: Project, monkeypatch: pytest.MonkeyPatch) -> Story:
    """Start two programs that no lease stands for, as after a lease has run out."""
    names = [ProcessId(new_id()) for _ in range(2)]
    for name, script in zip(names, (OBEYS, IGNORES), strict=True):
        spec = ProcessSpec(id=name, argv=["sh", "-c", script])
        await life.world.processes.start(project.id, spec)
        await ready(life, project, name)
    story = Story(life, project, *names)
    watch(story, monkeypatch)
    return story


async def ready(life: Life, project: Project, process: ProcessId) -> None:
    """Wait until a program has said that it is."""

    async def is_ready() -> bool:
        state = await life.world.processes.state(project.id, process)
        return state is not None and state.stdout_bytes > 0

    await until(is_ready)


def watch(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Note what the store and the record say at the moment in which the container is stopped."""
    engine = story.life.world.engine
    stop = engine.stop

    async def watched(project_id: ProjectId, *, grace: timedelta) -> ContainerInfo:
        story.saved_at_stop.append(await saved(story.life, story.project, "last"))
        story.phases_at_stop.append(await story.life.phase(story.project))
        return await stop(project_id, grace=grace)

    monkeypatch.setattr(engine, "stop", watched)


async def sleep_in(life: Life) -> None:
    """Let the project be idle, frozen first and then stopped."""
    await life.pass_time(6 * MINUTE)
    await life.pass_time(25 * MINUTE)


@pytest.mark.parametrize("kind", ENGINES)
async def test_an_idle_stop_tells_waits_kills_and_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What runs is told (TERM), has its grace, is killed; its last words are in its log and in the store first."""
    async with real(tmp_path, kind) as (life, project):
        story = await begin(life, project, monkeypatch)
        await sleep_in(life)
        await story.check()
        events = await life.world.db.read(event_rows.of_project, LOCAL_USER, project.id)
        last = [(event.kind, event.reason) for event in events[-4:]]
        assert last[:2] == [("phase.stopping", "idle"), ("checkpoint.saved", "stop")]
        assert last[-1] == ("phase.stopped", "saved")


@pytest.mark.parametrize("kind", ENGINES)
async def test_a_forced_stop_ends_work_and_a_plain_one_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Work is named in the refusal and goes on; with force it gets TERM, grace, KILL, and the stop is as any other."""
    async with real(tmp_path, kind) as (life, project):
        services = life.world.services
        runs = [
            await services.processes.exec(LOCAL_ACTOR, project.id, ["sh", "-c", script])
            for script in (OBEYS, IGNORES)
        ]
        for run in runs:
            await ready(life, project, run.id)
        story = Story(life, project, runs[0].id, runs[1].id)
        watch(story, monkeypatch)
        with pytest.raises(ConflictError) as refused:
            await services.goals.stop(LOCAL_ACTOR, project.id, is_forced=False)
        assert refused.value.code == "project_busy"
        assert runs[0].id in refused.value.message
        await life.pass_time(MINUTE)
        assert (await found(life, project)).goal is Goal.RUNNING
        assert story.saved_at_stop == []
        await services.goals.stop(LOCAL_ACTOR, project.id, is_forced=True)
        await story.check()
        ended = [await services.processes.get(LOCAL_ACTOR, run.id) for run in runs]
        assert {process.status for process in ended} == {ProcessStatus.KILLED}
        assert (await found(life, project)).goal is Goal.STOPPED


async def found(life: Life, project: Project) -> Project:
    """Return the project as it is recorded."""
    one = await life.world.db.read(project_rows.find, project.id)
    assert one is not None
    return one


async def _unsaved(*_: object) -> None:
    return


@pytest.mark.parametrize("unsafe", ["no_grace", "stopped_before_saved"])
async def test_an_unsafe_stop_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsafe: str
) -> None:
    """Without a grace, or with the container gone before the save, the look of these tests fails: it is not blind."""
    async with real(tmp_path, "bubblewrap") as (life, project):
        story = await begin(life, project, monkeypatch)
        if unsafe == "no_grace":
            life.world.services.steps._grace = timedelta(0)
        else:
            monkeypatch.setattr(Steps, "_save_stopping", _unsaved)
        await sleep_in(life)
        with pytest.raises(AssertionError, match=r"before the save|within the grace|last line"):
            await story.check()


async def test_what_will_not_end_by_itself_ends_with_the_container(life: Life) -> None:
    """Where the process layer cannot reach a program, the stop goes on: the container's end is its end."""
    project = await life.world.project()
    process = ProcessId(new_id())
    spec = ProcessSpec(id=process, argv=["sh", "-c", "echo ready; sleep 1000"])
    await life.world.processes.start(project.id, spec)
    await ready(life, project, process)

    async def unreachable(*_: object, **__: object) -> Exit:
        raise ConflictError("the launcher does not answer", code="process_unkillable")

    kill, life.world.processes.kill = life.world.processes.kill, unreachable  # type: ignore[method-assign]
    await life.pass_time(31 * MINUTE)
    life.world.processes.kill = kill  # type: ignore[method-assign]
    assert await life.phase(project) is Phase.STOPPED
    state = await life.world.processes.state(project.id, process)
    assert state is not None
    assert state.exit is not None
    assert state.exit.reason is ExitReason.CONTAINER_STOPPED


async def test_new_work_wakes_what_was_stopped_and_old_holds_do_not(life: Life) -> None:
    """A stop stands until there is new work: neither a lease from before nor a look undoes it."""
    services = life.world.services
    project = await life.world.project()
    async with services.containers.awake(project, holder="old", reason="test"):
        await services.goals.stop(LOCAL_ACTOR, project.id, is_forced=True)
        for _ in range(3):
            await life.pass_time(MINUTE)
        assert await life.phase(project) is Phase.STOPPED
    await life.pass_time(MINUTE)
    assert (await found(life, project)).goal is Goal.STOPPED
    await services.goals.start(LOCAL_ACTOR, project.id)
    assert await life.phase(project) is Phase.RUNNING
    assert (await found(life, project)).goal is Goal.RUNNING
    await life.pass_time(4 * MINUTE)
    assert await life.phase(project) is Phase.RUNNING
    events = await life.world.db.read(event_rows.of_project, LOCAL_USER, project.id)
    told = [(event.kind, event.reason) for event in events if event.kind.startswith("goal.")]
    assert told == [("goal.stopped", "forced"), ("goal.running", "work")]


@pytest.mark.parametrize("days", [-30, 30])
async def test_a_clock_that_jumps_ends_no_work(life: Life, days: int) -> None:
    """Work that goes on is not stopped by name because a clock that jumped has outrun its lease."""
    services = life.world.services
    project = await life.world.project()
    async with services.containers.awake(project, holder="worker", reason="test"):
        life.clock.jump(timedelta(days=days))
        with pytest.raises(ConflictError, match="worker"):
            await services.goals.stop(LOCAL_ACTOR, project.id, is_forced=False)
        assert (await found(life, project)).goal is Goal.RUNNING
    await services.goals.stop(LOCAL_ACTOR, project.id, is_forced=False)
    assert await life.phase(project) is Phase.STOPPED


async def test_a_forced_stop_releases_holds(life: Life) -> None:
    """A hold does not outlive it: nothing wakes the project, and its end is told with its reason."""
    services = life.world.services
    project = await life.world.project()
    length = timedelta(hours=2)
    await services.holds.take(LOCAL_ACTOR, project.id, reason="demo", length=length)
    with pytest.raises(ConflictError, match="demo"):
        await services.goals.stop(LOCAL_ACTOR, project.id, is_forced=False)
    await services.goals.stop(LOCAL_ACTOR, project.id, is_forced=True)
    await life.pass_time(MINUTE)
    assert await life.phase(project) is Phase.STOPPED
    assert await services.leases.of(project.id) == []
    # And a hold that is taken after it is new work.
    await services.holds.take(LOCAL_ACTOR, project.id, reason="again", length=length)
    assert await life.phase(project) is Phase.RUNNING
    assert (await found(life, project)).goal is Goal.RUNNING


async def test_a_stop_waits_for_a_look_and_not_for_long_hands(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look is over in a moment and then it stops; who has the project in hand for longer is told of."""
    services = life.world.services
    project = await life.world.project()
    async with services.containers.look(project):
        stopping = asyncio.create_task(
            services.goals.stop(LOCAL_ACTOR, project.id, is_forced=False)
        )
        await asyncio.sleep(0.2)
        assert await life.state(project) is ContainerState.RUNNING
    await stopping
    assert await life.phase(project) is Phase.STOPPED
    await services.goals.start(LOCAL_ACTOR, project.id)
    monkeypatch.setattr("anyon.services.goals.PATIENCE", timedelta(seconds=0.1))
    async with services.containers.lock(project.id):
        with pytest.raises(ConflictError) as refused:
            await services.goals.stop(LOCAL_ACTOR, project.id, is_forced=False)
    assert refused.value.code == "project_in_hand"
    # The goal stands, so the next look stops it.
    await life.pass_time(timedelta(seconds=1))
    assert await life.phase(project) is Phase.STOPPED


async def test_a_stop_says_so_when_a_look_does_not_end(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not answer as if it had stopped what is up; its goal stands, and the next look carries it out."""
    services = life.world.services
    project = await life.world.project()
    monkeypatch.setattr("anyon.services.goals._LOOKS", 3)
    async with services.containers.look(project):
        with pytest.raises(ConflictError) as refused:
            await services.goals.stop(LOCAL_ACTOR, project.id, is_forced=False)
        assert refused.value.code == "project_in_hand"
        assert await life.state(project) is ContainerState.RUNNING
    await life.pass_time(timedelta(seconds=1))
    assert await life.phase(project) is Phase.STOPPED


async def test_a_stop_that_is_repeated_changes_nothing(life: Life) -> None:
    """What is stopped stays so, with one event and one checkpoint; work that comes in a stop has the last word."""
    services = life.world.services
    project = await life.world.project()
    for _ in range(3):
        await services.goals.stop(LOCAL_ACTOR, project.id, is_forced=False)
    assert await life.phase(project) is Phase.STOPPED
    assert len(await checkpoints_of(life).history.list(LOCAL_ACTOR, project.id)) == 1
    events = await life.world.db.read(event_rows.of_project, LOCAL_USER, project.id)
    assert [event.kind for event in events].count("goal.stopped") == 1
    await services.goals.start(LOCAL_ACTOR, project.id)
    async with services.containers.lock(project.id):
        stopping = asyncio.create_task(
            services.goals.stop(LOCAL_ACTOR, project.id, is_forced=False)
        )
        await until(lambda: is_wanted_stopped(life, project))
        async with services.leases.hold(project.id, holder="new", reason="work"):
            pass
    with pytest.raises(ConflictError, match="awake"):
        await stopping
    assert await life.phase(project) is Phase.RUNNING


async def is_wanted_stopped(life: Life, project: Project) -> bool:
    """Say whether a stop is recorded."""
    return (await found(life, project)).goal is Goal.STOPPED


async def test_a_stop_outlives_the_server(life: Life) -> None:
    """A goal is a record: the reconciler of the next life carries it out."""
    project = await life.world.project()
    await life.world.db.write(
        project_rows.want, project.id, Goal.STOPPED, instead_of={Goal.RUNNING}
    )
    await life.reconciler.tick()
    assert await life.phase(project) is Phase.STOPPED
