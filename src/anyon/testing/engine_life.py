"""The promises of an engine about the life of containers."""

import asyncio
import contextlib
from collections.abc import Awaitable

import pytest

from anyon.domain.errors import ConflictError, EngineUnavailableError, NotFoundError
from anyon.domain.ids import ProjectId, new_id
from anyon.engines.engine import (
    Command,
    ContainerSpec,
    ContainerState,
    Engine,
)
from anyon.testing.engine_trials import (
    GRACE,
    PATIENCE,
    EngineTrials,
    MakeSpec,
    read_until,
    sh,
    size,
    until,
)


class LifeContract(EngineTrials):
    """Ensure, start, stop, freeze, thaw, remove, inspect, list, stats."""

    async def test_health_names_the_engine(self, engine: Engine) -> None:
        """An engine that works says its name and version."""
        health = await engine.health()
        assert health.engine == engine.name
        assert health.version

    async def test_ensure_makes_a_stopped_container_once(
        self, engine: Engine, make_spec: MakeSpec
    ) -> None:
        """Ensure never starts, and a repeat gives the same container."""
        spec = make_spec()
        first = await engine.ensure(spec)
        try:
            assert first.state is ContainerState.STOPPED
            assert first.project == spec.project
            assert first.name == f"project-{spec.project}"
            assert first.labels.items() >= spec.labels.items()
            again = await engine.ensure(spec)
            assert (again.id, again.state) == (first.id, ContainerState.STOPPED)
        finally:
            await engine.remove(spec.project)

    async def test_twenty_callers_make_one_container(
        self, engine: Engine, make_spec: MakeSpec
    ) -> None:
        """However many callers ask at once, there is one container."""
        spec = make_spec()
        try:
            made = await asyncio.gather(*(engine.ensure(spec) for _ in range(20)))
            assert len({info.id for info in made}) == 1
            listed = [info for info in await engine.list() if info.project == spec.project]
            assert [info.id for info in listed] == [made[0].id]
            started = await asyncio.gather(*(engine.start(spec.project) for _ in range(10)))
            assert {info.state for info in started} == {ContainerState.RUNNING}
            assert len({info.pid for info in started}) == 1
        finally:
            await engine.remove(spec.project)

    async def test_ensure_adopts_what_runs(
        self, engine: Engine, spec: ContainerSpec, project: ProjectId
    ) -> None:
        """A container that exists is taken as it is, whatever its state."""
        running = await engine.inspect(project)
        assert running is not None
        adopted = await engine.ensure(spec)
        assert (adopted.id, adopted.pid, adopted.state) == (
            running.id,
            running.pid,
            ContainerState.RUNNING,
        )

    async def test_start_stop_start(self, engine: Engine, spec: ContainerSpec) -> None:
        """A container can be started, stopped and started again; repeats change nothing."""
        project = spec.project
        running = await engine.start(project)
        assert running.state is ContainerState.RUNNING
        assert running.started_at is not None
        assert running.started_at.tzinfo is not None
        assert (await engine.start(project)).pid == running.pid
        assert (await engine.stop(project, grace=GRACE)).state is ContainerState.STOPPED
        stopped = await engine.stop(project, grace=GRACE)
        assert (stopped.state, stopped.pid) == (ContainerState.STOPPED, None)
        again = await engine.start(project)
        assert (again.state, again.id) == (ContainerState.RUNNING, running.id)
        assert await sh(engine, project, "echo alive") == b"alive\n"

    async def test_inspect_and_list_agree(self, engine: Engine, project: ProjectId) -> None:
        """What is listed is what inspect says of each; an unknown project is None."""
        info = await engine.inspect(project)
        assert info is not None
        listed = {item.project: item for item in await engine.list()}
        assert listed[project].state is info.state is ContainerState.RUNNING
        assert listed[project].id == info.id
        assert await engine.inspect(ProjectId(new_id())) is None

    async def test_freeze_stops_the_clock_and_thaw_goes_on(
        self, engine: Engine, project: ProjectId, spec: ContainerSpec
    ) -> None:
        """A frozen container's processes get no CPU and lose nothing."""
        stream = await engine.open(
            project,
            Command(argv=["sh", "-c", "while :; do echo x >>/workspace/beats; sleep 0.02; done"]),
        )
        beats = spec.mounts[0].source / "beats"

        async def beating() -> bool:
            before = size(beats)
            await asyncio.sleep(0.3)
            return size(beats) > before

        await until(beating)
        assert (await engine.freeze(project)).state is ContainerState.FROZEN
        await asyncio.sleep(0.1)  # a write that was on its way
        assert not await beating()
        frozen = await engine.inspect(project)
        assert frozen is not None
        assert frozen.state is ContainerState.FROZEN
        assert (await engine.freeze(project)).state is ContainerState.FROZEN
        assert (await engine.start(project)).state is ContainerState.FROZEN
        with pytest.raises(ConflictError) as refused:
            await engine.open(project, Command(argv=["true"]))
        assert refused.value.code == "frozen"
        assert (await engine.thaw(project)).state is ContainerState.RUNNING
        await until(beating)
        assert (await engine.thaw(project)).state is ContainerState.RUNNING
        await stream.close()

    async def test_a_frozen_container_can_be_stopped_and_removed(
        self, engine: Engine, project: ProjectId
    ) -> None:
        """Stop and remove thaw first."""
        await engine.freeze(project)
        assert (await engine.stop(project, grace=GRACE)).state is ContainerState.STOPPED
        await engine.start(project)
        await engine.freeze(project)
        await engine.remove(project)
        assert await engine.inspect(project) is None

    async def test_what_needs_a_running_container_refuses_a_stopped_one(
        self, engine: Engine, spec: ContainerSpec
    ) -> None:
        """Freeze, thaw and open of a stopped container are conflicts with a code."""
        calls: list[Awaitable[object]] = [
            engine.freeze(spec.project),
            engine.thaw(spec.project),
            engine.open(spec.project, Command(argv=["true"])),
        ]
        for call in calls:
            with pytest.raises(ConflictError) as refused:
                await call
            assert refused.value.code == "not_running"
        assert await engine.stats(spec.project) is None

    async def test_an_absent_container_is_not_found(self, engine: Engine) -> None:
        """Each call but remove and inspect says that there is no container."""
        absent = ProjectId(new_id())
        calls: list[Awaitable[object]] = [
            engine.start(absent),
            engine.stop(absent, grace=GRACE),
            engine.freeze(absent),
            engine.thaw(absent),
            engine.open(absent, Command(argv=["true"])),
            engine.stats(absent),
        ]
        for call in calls:
            with pytest.raises(NotFoundError) as refused:
                await call
            assert refused.value.code == "container_absent"
        await engine.remove(absent)

    async def test_remove_takes_what_was_installed_and_leaves_the_mounts(
        self, engine: Engine, spec: ContainerSpec, project: ProjectId
    ) -> None:
        """After remove the container is new again; the project's files are as they were."""
        await sh(engine, project, f"echo 1 >{self.installed_path} && echo kept >/workspace/kept")
        await engine.remove(project)
        await engine.remove(project)
        assert await engine.inspect(project) is None
        assert project not in {info.project for info in await engine.list()}
        assert (spec.mounts[0].source / "kept").read_bytes() == b"kept\n"
        await engine.ensure(spec)
        await engine.start(project)
        assert (
            await sh(engine, project, f"test ! -e {self.installed_path} && echo gone") == b"gone\n"
        )

    async def test_what_was_installed_outlives_a_stop(
        self, engine: Engine, project: ProjectId
    ) -> None:
        """A file outside the mounts is there after stop and start."""
        await sh(engine, project, f"echo tool >{self.installed_path}")
        await engine.stop(project, grace=GRACE)
        await engine.start(project)
        assert await sh(engine, project, f"cat {self.installed_path}") == b"tool\n"

    async def test_stop_ends_programs_that_ignore_term(
        self, engine: Engine, project: ProjectId
    ) -> None:
        """After the grace everything is killed, and stop says so truly."""
        stubborn = await engine.open(
            project,
            Command(
                argv=["sh", "-c", "trap '' TERM INT HUP; echo on; while :; do sleep 1; done"],
            ),
        )
        await read_until(stubborn, b"on\n")
        async with asyncio.timeout(PATIENCE):
            assert (await engine.stop(project, grace=GRACE)).state is ContainerState.STOPPED
            with contextlib.suppress(EngineUnavailableError):
                assert await stubborn.wait() != 0
        await stubborn.close()

    async def test_orphans_leave_no_zombies(self, engine: Engine, project: ProjectId) -> None:
        """A first process that reaps is always there: double forks leave nothing."""
        await sh(
            engine,
            project,
            "i=0; while [ $i -lt 20 ]; do (sleep 0.01 & ) ; i=$((i+1)); done; sleep 0.2",
        )

        async def none_left() -> bool:
            script = "cat /proc/[0-9]*/status 2>/dev/null | grep -c '^State:.Z' || true"
            return (await sh(engine, project, script)).strip() == b"0"

        await until(none_left)

    async def test_stats_of_a_running_container(self, engine: Engine, project: ProjectId) -> None:
        """CPU time only grows; a program counts."""
        stream = await engine.open(project, Command(argv=["sh", "-c", "echo on; exec sleep 600"]))
        await read_until(stream, b"on\n")
        first = await engine.stats(project)
        await sh(engine, project, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
        second = await engine.stats(project)
        assert first is not None
        assert second is not None
        assert first.pids >= 1
        assert first.memory_bytes > 0
        assert second.cpu_seconds >= first.cpu_seconds
        assert second.oom_kills == 0
        await stream.close()

    async def test_a_container_goes_on_when_the_engine_is_closed(
        self, engine: Engine, project: ProjectId
    ) -> None:
        """Close lets go of connections only, and a closed stream may be closed again."""
        stream = await engine.open(project, Command(argv=["cat"]))
        await stream.close()
        await stream.close()
        info = await engine.inspect(project)
        assert info is not None
        assert info.state is ContainerState.RUNNING
