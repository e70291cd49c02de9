"""A machine that does to a server what life does to one, in any order, and knows what must stay true.

No program runs: work is a lease and a file in the project's directory, the engine's containers
are facts, and time is the machine's own. What is acknowledged once must come back for ever.
"""

import asyncio
import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection
from tests.lifecycle.conftest import Store

from anyon.db import projects as project_rows
from anyon.db import schema
from anyon.db import users as user_rows
from anyon.db.databases import Database
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError, UnavailableError
from anyon.domain.ids import LOCAL_USER, ProjectId, new_id
from anyon.domain.states import Goal, Phase
from anyon.engines.engine import Command, ContainerInfo, ContainerSpec, ContainerState, Stream
from anyon.engines.memory import MemoryEngine
from anyon.git.repository import Branch
from anyon.lifecycle.reconciler import Reconciler
from anyon.services import archives
from anyon.services.mounts import Mounts
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.glances import Glance
from anyon.telemetry import Metrics
from anyon.testing.clocks import FakeClock
from anyon.testing.worlds import World

T = TypeVar("T")
GRACE = timedelta(0)
WINDOW = timedelta(days=7)
WHICH = st.integers(0, 3)
AWAY = {Phase.ARCHIVING, Phase.ARCHIVED, Phase.RESTORING}
"""The phases in which a project's files may be in the store only."""


class Crash(Exception):  # noqa: N818 - the end of a server, not an error of it
    """The server died at this call of the engine."""


@dataclass
class Model:
    """What is known of one project: what must come back, who holds it in this life of the server."""

    id: ProjectId
    files: dict[str, str] = field(default_factory=dict)
    work: AsyncExitStack | None = None
    is_deleted: bool = False


class MortalDatabase(Database):
    """Answers nothing more once its server is dead, so that a dead server records nothing.

    All lives of all servers of this process share one open file, which is emptied for each new
    home, and no thread is asked: to open and to hand over took most of the time of a step.
    """

    is_dead = False
    _shared: ClassVar["Database | None"] = None

    async def open(self) -> None:
        """Take the open file."""
        if MortalDatabase._shared is None:
            place = Path(tempfile.mkdtemp(prefix="anyon-life-", dir=memory()))
            atexit.register(shutil.rmtree, place)
            MortalDatabase._shared = Database(place / "anyon.db")
            MortalDatabase._shared._open()
        self._writer, self._reader = self._shared._writer, self._shared._reader

    async def close(self) -> None:
        """Leave the file open for the next life."""

    async def empty(self) -> None:
        """Forget everything: the next home is another one."""
        await self.write(_empty)

    async def _in(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:  # type: ignore[override]  # it needs itself
        await asyncio.sleep(0)  # others may go on meanwhile, as they may with threads
        if self.is_dead:
            raise UnavailableError("the server is dead")
        return work()


def _empty(connection: Connection) -> None:
    for table in reversed(schema.metadata.sorted_tables):
        connection.execute(table.delete())


def _all(connection: Connection) -> dict[ProjectId, Project]:
    found = [
        *project_rows.living(connection),
        *project_rows.tombstones(connection, LOCAL_USER),
    ]
    return {project.id: project for project in found}


class Inline(ThreadPoolExecutor):
    """Does at once what it is given: waking a thread takes longer than most of what is done here."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Return a future that is over."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - it is the future's
            future.set_exception(error)
        return future


def memory() -> Path | None:
    """Return a place in memory, if there is one: power cuts are not what is tried here, and fsync is slow."""
    place = Path("/dev/shm")
    return place if os.access(place, os.W_OK) else None


METRICS = Metrics()
"""One for all lives: to make hundreds of counters for each of them took a tenth of the time."""


class WatchedEngine(MemoryEngine):
    """Notes who is put to sleep, and kills its server at a call when it is told to."""

    def __init__(self, home: Path) -> None:
        super().__init__([home])
        self.calls_to_live = 0
        self.dies_after = False
        self.held: set[ProjectId] = set()
        self.stopped: set[ProjectId] = set()
        """Those that somebody has stopped by name, until there is new work."""
        self.is_looked_at = False
        """While somebody looks at a project, and nothing else happens."""
        self.wrongs: list[str] = []

    async def _call(self, name: str, project: ProjectId, work: Coroutine[Any, Any, T]) -> T:
        if name in {"freeze", "stop", "remove"} and project in self.held:
            self.wrongs.append(f"{name} of a project with a lease")
        if name == "start" and project in self.stopped:
            self.wrongs.append("start of a project that was stopped by name")
        if name in {"ensure", "start", "thaw"} and self.is_looked_at:
            self.wrongs.append(f"{name} for a look")
        self.calls_to_live -= 1
        is_last = self.calls_to_live == 0
        if is_last and not self.dies_after:
            work.close()
            raise Crash(name)
        done = await work
        if is_last:
            raise Crash(name)
        return done

    async def open(self, project: ProjectId, command: Command) -> Stream:
        """Refuse: no program is run in these lives, and a real sandbox for each wake took half of the time."""
        raise UnavailableError("no program runs in these lives", code="no_programs")

    async def ensure(self, spec: ContainerSpec) -> ContainerInfo:
        """See Engine."""
        return await self._call("ensure", spec.project, super().ensure(spec))

    async def start(self, project: ProjectId) -> ContainerInfo:
        """See Engine."""
        return await self._call("start", project, super().start(project))

    async def stop(self, project: ProjectId, *, grace: timedelta) -> ContainerInfo:
        """See Engine."""
        return await self._call("stop", project, super().stop(project, grace=grace))

    async def freeze(self, project: ProjectId) -> ContainerInfo:
        """See Engine."""
        return await self._call("freeze", project, super().freeze(project))

    async def thaw(self, project: ProjectId) -> ContainerInfo:
        """See Engine."""
        return await self._call("thaw", project, super().thaw(project))

    async def remove(self, project: ProjectId) -> None:
        """See Engine."""
        await self._call("remove", project, super().remove(project))


class Repositories:
    """Answers what pages ask as git would, from the files of a project and in a running container only."""

    def __init__(self, engine: MemoryEngine, home: Callable[[ProjectId], Path]) -> None:
        self._engine = engine
        self._home = home

    def of(self, project: ProjectId) -> "Repository":
        """Return the project's."""
        return Repository(self._engine, project, self._home(project))


@dataclass(frozen=True, slots=True)
class Repository:
    """One of them: its branches are named by what the files hold."""

    engine: MemoryEngine
    project: ProjectId
    files: Path

    async def branches(self) -> list[Branch]:
        """Return one branch, which tells what the files hold now."""
        info = await self.engine.inspect(self.project)
        if info is None or info.state is not ContainerState.RUNNING:
            raise UnavailableError("nothing runs there", code="not_running")
        found = {file.name: file.read_text() for file in self.files.glob("file*")}
        now = FakeClock().now()
        return [Branch(name=told(found), is_current=True, is_remote=False, last_commit_at=now)]

    async def saved_work(self) -> list[object]:
        """Return none."""
        return []


def told(files: dict[str, str]) -> str:
    """Return what files hold as one word."""
    return str(sorted(files.items()))


class LifeMachine(RuleBasedStateMachine):
    """Creates, works, sleeps, wakes, deletes, undoes, crashes, loses; see the module."""

    steps: ClassVar[int] = 0
    """How many were taken in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.runner.get_loop().set_default_executor(Inline())
        self.home = Path(tempfile.mkdtemp(prefix="anyon-life-", dir=memory()))
        self.clock = FakeClock()
        self.store = Store()
        self.engine = WatchedEngine(self.home)
        self.models: list[Model] = []
        self.written = 0
        self.glance: type[Glance] | None = Glance

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run one step to its end."""
        return self.runner.run(work)

    @initialize(glance=st.sampled_from([None, None, None, Glance]))
    def begin(self, glance: type[Glance] | None) -> None:
        """Start the first life of the server, with two projects.

        Few lives look at trees by *glance*: a program started for each save takes a third of the time.
        """
        self.glance = glance
        self.do(self._start(is_first=True))
        self.create()
        self.create()

    async def _start(self, *, is_first: bool = False) -> None:
        self.checkpoints = Checkpoints(
            self.store,  # type: ignore[arg-type]  # it answers as the store does
            cache=self.home / "cache",
            clock=self.clock,
            glance=self.glance,
        )
        self.checkpoints._pool = Inline()
        changes = {
            "clock": self.clock,
            "checkpoints": self.checkpoints,
            "stop_grace": GRACE,
            "undo_window": WINDOW,
            "metrics": METRICS,
            "mounts": Mounts(place=self.home / "mount", clock=self.clock, metrics=METRICS),
            "repositories": Repositories(self.engine, self._place),
        }
        self.db = MortalDatabase(self.home / "anyon.db")
        self.world = World(self.home, self.engine, changes, self.db)
        await self.world.db.open()
        if is_first:
            await self.db.empty()
        services = self.world.services
        await services.recover()
        tiers = services.tiers
        self.reconciler = Reconciler(
            db=self.world.db,
            engine=self.engine,
            steps=services.steps,
            leases=services.leases,
            clock=self.clock,
            tiers=tiers,
            metrics=METRICS,
        )

    def _place(self, project: ProjectId) -> Path:
        return self.world.services.homes.project(LOCAL_USER, project)

    async def _die(self) -> None:
        """End this life with nothing given back, and begin the next."""
        self.engine.calls_to_live = 0
        self.engine.held.clear()
        self.db.is_dead = True
        for model in self.models:
            work, model.work = model.work, None
            if work is not None:
                await work.aclose()
        await self.world.services.close()
        await self.world.processes.close()
        await self.checkpoints.close()
        self.db.is_dead = False
        await self.db.close()
        await self._start()

    async def _attempt(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return what *work* returns; None where it was refused or its server died, which lives again then."""
        try:
            return await work
        except AnyonError:
            return None
        except Crash:
            await self._die()
        except ExceptionGroup as group:
            _, others = group.split(Crash)
            if others is not None:
                raise
            await self._die()
        return None

    def _chosen(self, which: int, *, deleted: bool = False) -> Model | None:
        found = [model for model in self.models if model.is_deleted == deleted]
        return found[which % len(found)] if found else None

    async def _project(self, model: Model) -> Project:
        found = await self.world.db.read(project_rows.find, model.id)
        assert found is not None, "a project's record is gone"
        return found

    @rule()
    def create(self) -> None:
        """Make a project, four at most."""
        if len(self.models) < 4:
            self.do(self._create())

    async def _create(self) -> None:
        project_id, now = ProjectId(new_id()), self.clock.now()
        project = Project(
            id=project_id,
            user_id=LOCAL_USER,
            name=f"p{project_id}",
            path=str(self.world.services.homes.project(LOCAL_USER, project_id)),
            phase_since=now,
            last_active_at=now,
            created_at=now,
            updated_at=now,
        )
        await self.world.db.write(user_rows.ensure, LOCAL_USER, "local", now)
        assert await self.world.db.write(project_rows.add, project)
        await self.world.services.leases.claim(project_id)
        self.models.append(Model(project_id))
        await self.world.services.homes.make(project)

    @rule(which=WHICH)
    def begin_work(self, which: int) -> None:
        """Wake a project and write a file: from then on it is acknowledged."""
        model = self._chosen(which)
        if model is not None:
            self.do(self._attempt(self._begin_work(model)))

    async def _begin_work(self, model: Model) -> None:
        project = await self._project(model)
        if model.work is None:
            self.engine.stopped.discard(model.id)
            async with AsyncExitStack() as stack:
                hold = self.world.services.containers.awake(project, holder="w", reason="test")
                await stack.enter_async_context(hold)
                model.work = stack.pop_all()
            self.engine.held.add(model.id)
        elif not await self.world.services.containers.is_running(model.id):
            return  # stopped behind our back: the next look repairs it
        self._check_files(project, model)
        self.written += 1
        name, content = f"file{self.written % 3}", f"content {self.written}"
        (Path(project.path) / name).write_text(content)
        model.files[name] = content

    @staticmethod
    def _check_files(project: Project, model: Model) -> None:
        for name, content in model.files.items():
            found = Path(project.path) / name
            assert found.is_file(), f"{name} is lost"
            assert found.read_text() == content, f"{name} is not what was written last"

    @rule(which=WHICH)
    def end_work(self, which: int) -> None:
        """Let go of a project."""
        model = self._chosen(which)
        if model is not None and model.work is not None:
            self.engine.held.discard(model.id)
            work, model.work = model.work, None
            self.do(work.aclose())

    @rule(which=WHICH)
    def work_and_leave(self, which: int) -> None:
        """Write a file and let go."""
        self.begin_work(which)
        self.end_work(which)

    @rule(which=WHICH)
    def somebody_looks(self, which: int) -> None:
        """Ask for a project's branches: it is answered as things are, or refused, and wakes nothing."""
        model = self._chosen(which)
        if model is not None:
            self.do(self._look(model))

    async def _look(self, model: Model) -> None:
        services = self.world.services
        if model.work is not None and not await services.containers.is_running(model.id):
            return  # taken from under the work behind our back: whoever looks waits for that
        self.engine.is_looked_at = True
        try:
            found = await services.projects.branches(LOCAL_ACTOR, model.id)
        except AnyonError:
            return
        finally:
            self.engine.is_looked_at = False
        assert [one.name for one in found] == [told(model.files)], (
            "what was seen is not so any more"
        )

    @rule(which=WHICH)
    def work_sleep_and_be_looked_at(self, which: int) -> None:
        """Let a project be worked in and sleep; then ask, and what it says must be there."""
        self.work_and_leave(which)
        self.time_passes(6)
        self.somebody_looks(which)

    @rule(which=WHICH, is_forced=st.booleans())
    def stop_by_name(self, which: int, *, is_forced: bool) -> None:
        """Ask for a project's stop; without force it is refused while somebody works in it."""
        model = self._chosen(which)
        if model is not None:
            self.do(self._attempt(self._stop_by_name(model, is_forced=is_forced)))

    async def _stop_by_name(self, model: Model, *, is_forced: bool) -> None:
        if is_forced:  # what is held counts for nothing from here on
            self.engine.held.discard(model.id)
        goals = self.world.services.goals
        await goals.stop(LOCAL_ACTOR, model.id, is_forced=is_forced)
        assert is_forced or model.work is None, "a project was stopped under work"
        assert (await self._project(model)).goal in {Goal.STOPPED, Goal.ARCHIVED}
        info = await self.engine.inspect(model.id)
        assert info is None or info.state is ContainerState.STOPPED, "what was stopped is up"
        self.engine.stopped.add(model.id)

    @rule(which=WHICH, is_forced=st.booleans())
    def archive_by_name(self, which: int, *, is_forced: bool) -> None:
        """Ask that a project's files go; without force it is refused while somebody works in it."""
        model = self._chosen(which)
        if model is not None:
            self.do(self._attempt(self._archive_by_name(model, is_forced=is_forced)))

    async def _archive_by_name(self, model: Model, *, is_forced: bool) -> None:
        if is_forced:  # as for a stop
            self.engine.held.discard(model.id)
        goals = self.world.services.goals
        await goals.archive(LOCAL_ACTOR, model.id, is_forced=is_forced)
        assert is_forced or model.work is None, "a project was archived under work"
        project = await self._project(model)
        assert project.goal is Goal.ARCHIVED
        is_asleep = project.phase in {Phase.ARCHIVED, Phase.STOPPED_UNSAVED}
        assert is_asleep or not Path(project.path).is_dir(), f"it was left {project.phase}"
        self.engine.stopped.add(model.id)

    @rule(calls=st.integers(1, 3), dies_after=st.booleans(), which=WHICH)
    def the_server_dies_in_a_stop_by_name(self, calls: int, dies_after: bool, which: int) -> None:
        """Kill the server at a call of the engine, while it stops a project that somebody named."""
        self.engine.calls_to_live, self.engine.dies_after = calls, dies_after
        self.stop_by_name(which, is_forced=True)
        self.engine.calls_to_live = 0

    @rule(minutes=st.sampled_from([1, 6, 31, 60 * 24 * 8]))
    def time_passes(self, minutes: int) -> None:
        """Let time pass, and the reconciler look twice."""
        self.do(self.clock.advance(timedelta(minutes=minutes)))
        for _ in range(2):
            self.do(self._attempt(self.reconciler.tick()))

    @rule(
        calls=st.integers(1, 4), dies_after=st.booleans(), minutes=st.sampled_from([6, 31, 20000])
    )
    def the_server_dies_in_a_step(self, calls: int, dies_after: bool, minutes: int) -> None:
        """Kill the server at a call of the engine, while it steps projects down or wakes them."""
        self.engine.calls_to_live, self.engine.dies_after = calls, dies_after
        self.time_passes(minutes)
        self.engine.calls_to_live = 0

    @rule(calls=st.integers(1, 3), dies_after=st.booleans(), which=WHICH)
    def the_server_dies_in_a_wake(self, calls: int, dies_after: bool, which: int) -> None:
        """Kill the server at a call of the engine, while it wakes a project for work."""
        self.engine.calls_to_live, self.engine.dies_after = calls, dies_after
        self.begin_work(which)
        self.engine.calls_to_live = 0

    @rule()
    def the_server_dies(self) -> None:
        """Kill the server between two steps."""
        self.do(self._die())

    @rule(days=st.sampled_from([30, -30]))
    def the_clock_jumps(self, days: int) -> None:
        """Set the wall clock a month forward or back."""
        self.clock.jump(timedelta(days=days))
        self.do(self._attempt(self.reconciler.tick()))

    @rule(is_away=st.sampled_from([False, False, False, True]))
    def the_store_goes_or_comes(self, *, is_away: bool) -> None:
        """Take the store away, or bring it back."""
        self.store.is_away = is_away

    @rule(which=WHICH)
    def work_sleep_and_lose_the_disk(self, which: int) -> None:
        """Let a project be worked in, sleep, and be stopped; then take its disk."""
        self.work_and_leave(which)
        self.time_passes(31)
        self.the_disk_of_a_stopped_project_is_lost(which)

    @rule(which=WHICH, deed=st.sampled_from(["stop", "start", "remove", "freeze"]))
    def somebody_meddles(self, which: int, deed: str) -> None:
        """Do to a container behind the server's back what the engine allows."""
        model = self._chosen(which)
        if model is None:
            return
        more = {"grace": GRACE} if deed == "stop" else {}
        with contextlib.suppress(AnyonError):
            self.do(getattr(MemoryEngine, deed)(self.engine, model.id, **more))

    @rule(which=WHICH)
    def the_disk_of_a_stopped_project_is_lost(self, which: int) -> None:
        """What is called stopped is saved: without its local files everything comes back all the same."""
        model = self._chosen(which)
        if model is not None:
            self.do(self._lose(model))

    async def _lose(self, model: Model) -> None:
        project = await self._project(model)
        info = await self.engine.inspect(model.id)
        is_up = info is not None and info.state.value != "stopped"
        if project.phase is not Phase.STOPPED or model.work is not None or is_up:
            return
        await MemoryEngine.remove(self.engine, model.id)
        for path in self.world.services.homes.trees(project).values():
            shutil.rmtree(path, ignore_errors=True)
        await self.world.services.containers.record(model.id, Phase.ARCHIVED, reason="lost")

    @rule(which=WHICH)
    def delete(self, which: int) -> None:
        """Delete a project, its work let go first."""
        model = self._chosen(which)
        if model is None:
            return
        self.end_work(which)
        self.do(self._delete(model))

    async def _delete(self, model: Model) -> None:
        model.is_deleted = True  # its tombstone stands even where the rest fails
        await self._attempt(self.world.services.projects.delete(LOCAL_ACTOR, model.id))
        model.is_deleted = (await self._project(model)).deleted_at is not None

    @rule(calls=st.integers(1, 3), dies_after=st.booleans(), which=WHICH)
    def the_server_dies_in_a_deletion(self, calls: int, dies_after: bool, which: int) -> None:
        """Kill the server at a call of the engine, while it deletes a project."""
        self.engine.calls_to_live, self.engine.dies_after = calls, dies_after
        self.delete(which)
        self.engine.calls_to_live = 0

    @rule(days=st.sampled_from([0, 1, 8]))
    def the_reaper_looks(self, days: int) -> None:
        """Let the reaper forget what was deleted before the window, and nothing else."""
        if days:
            self.do(self.clock.advance(timedelta(days=days)))
        self.do(self._reap())

    async def _reap(self) -> None:
        before = {model.id: await self._project(model) for model in self.models}
        await self.world.services.deletions.purge()
        gone = [
            model
            for model in self.models
            if await self.world.db.read(project_rows.find, model.id) is None
        ]
        # All at once: what is wrong with one must not be told as the loss of another.
        self.models = [model for model in self.models if model not in gone]
        for model in gone:
            deleted_at = before[model.id].deleted_at
            assert deleted_at is not None, "a project was forgotten that nobody deleted"
            assert self.clock.now() - deleted_at > WINDOW, "a project was forgotten too soon"
            assert await self.engine.inspect(model.id) is None, "what is forgotten has a container"
            place = archives.place(before[model.id])
            assert not list(self.store.inner.list(f"{place}/")), "something is left in the store"

    @rule(which=WHICH)
    def undo(self, which: int) -> None:
        """Bring a deleted project back, where that is possible by now."""
        model = self._chosen(which, deleted=True)
        if model is not None:
            self.do(self._undo(model))

    async def _undo(self, model: Model) -> None:
        self.engine.stopped.discard(model.id)
        await self._attempt(self.world.services.deletions.undo(LOCAL_ACTOR, model.id))
        model.is_deleted = (await self._project(model)).deleted_at is not None

    @invariant()
    def nothing_is_wrong(self) -> None:
        """No project with a lease was stepped down, and no container is there twice or for nobody."""
        LifeMachine.steps += 1
        assert not self.engine.wrongs, self.engine.wrongs[0]
        if self.models:
            self.do(self._check_containers())

    async def _check_containers(self) -> None:
        listed = [info.project for info in await self.engine.list()]
        assert len(listed) == len(set(listed))
        projects = await self.world.db.read(_all)
        for model in self.models:
            assert model.id in projects, "a project's record is gone"
            project = projects[model.id]
            if model.is_deleted and project.phase is Phase.ABSENT:
                assert model.id not in listed, "a deleted project has a container"
            if not model.is_deleted and project.phase not in AWAY:
                # A restore that the store did not answer for two hours is an error, with no files yet.
                is_late = project.state_reason == "restoring_deadline"
                assert is_late or Path(project.path).is_dir(), f"{project.phase} without files"

    def teardown(self) -> None:
        """At the end the store is there again, and every project has all that was acknowledged."""
        try:
            if hasattr(self, "world"):
                self.store.is_away = False
                self.engine.calls_to_live = 0
                self.do(self._check_all())
                self.do(self._close())
        finally:
            self.runner.close()
            shutil.rmtree(self.home, ignore_errors=True)

    async def _check_all(self) -> None:
        await self._die()  # the next life finishes what is half done
        self.engine.stopped.clear()
        for model in self.models:
            if model.is_deleted:
                assert (await self._project(model)).phase is Phase.ABSENT, "half deleted"
                await self.world.services.deletions.undo(LOCAL_ACTOR, model.id)
            project = await self._project(model)
            hold = self.world.services.containers.awake(project, holder="end", reason="test")
            async with hold:
                self._check_files(project, model)
        assert not self.engine.wrongs, self.engine.wrongs[0]

    async def _close(self) -> None:
        for model in self.models:
            if model.work is not None:
                await model.work.aclose()
        await self.world.end()
        await self.checkpoints.close()
        await self.engine.close()
