"""What the next life of a server takes up."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from anyon.db import leases as lease_rows
from anyon.db import processes as process_rows
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.ids import LeaseId, new_id
from anyon.domain.states import ExitReason, ProcessStatus, RunReason, TaskStatus
from anyon.testing.worlds import GRACE, World, living, until


async def test_running_attempts_go_on(tmp_path: Path) -> None:
    """A restart does not touch what runs: the agent goes on, and its chain is carried to its end."""
    async with living(tmp_path / "home") as world:
        project = await world.project(cleanup_script="cat made.txt")
        script = "echo one; while [ ! -e /workspace/go ]; do sleep 0.05; done; echo two > made.txt"
        attempt = await world.attempt(project, script)
        (agent,) = await world.services.attempts.processes(LOCAL_ACTOR, attempt.id)
        chunks = world.services.processes.follow(LOCAL_ACTOR, agent.id)
        assert (await anext(aiter(chunks))).data == b"one\n"
        later = await world.reborn()
        await later.services.recover()
        (same,) = await later.services.attempts.processes(LOCAL_ACTOR, attempt.id)
        assert (same.id, same.status) == (agent.id, ProcessStatus.RUNNING)
        # From the first moment on: a job that is silent for long must not be put to sleep now.
        leases = await later.services.leases.of(project.id)
        assert {lease.holder for lease in leases} == {agent.id}
        (Path(project.path) / "go").touch()
        processes = await later.over(attempt)
        assert [p.run_reason for p in processes] == [
            RunReason.CODINGAGENT,
            RunReason.CLEANUPSCRIPT,
        ]
        assert await later.printed(processes[1]) == b"two\n"
        await later.end()


async def test_a_stop_that_was_asked_for_is_carried_out(tmp_path: Path) -> None:
    """A server that died between the record of a stop and the stop itself: the next one ends the program."""
    async with living(tmp_path / "home") as world:
        project = await world.project()
        process = await world.services.processes.exec(LOCAL_ACTOR, project.id, ["sleep", "600"])

        async def has_started() -> bool:
            return await world.processes.state(project.id, process.id) is not None

        await until(has_started)
        await world.db.write(process_rows.stop, process.id, datetime.now(UTC))
        later = await world.reborn()
        await later.services.recover()

        async def is_killed() -> bool:
            found = await later.services.processes.get(LOCAL_ACTOR, process.id)
            return found.status is ProcessStatus.KILLED

        await until(is_killed)
        await later.end()


async def test_what_was_lost_is_said(tmp_path: Path) -> None:
    """Processes of a container that is gone get an exit and their task leaves "in progress"."""
    async with living(tmp_path / "home") as world:
        project = await world.project()
        attempt = await world.attempt(project, "sleep 600")
        (agent,) = await world.services.attempts.processes(LOCAL_ACTOR, attempt.id)
        process = await world.services.processes.exec(LOCAL_ACTOR, project.id, ["sleep", "600"])

        async def has_started() -> bool:
            return await world.processes.state(project.id, agent.id) is not None

        await until(has_started)
        await world.end()
        await world.engine.stop(project.id, grace=GRACE)
        later = World(world.home, world.engine, {})
        await later.db.open()
        await later.services.recover()
        (agent,) = await later.over(attempt)
        assert agent.status is ProcessStatus.FAILED
        assert agent.exit_reason in {
            ExitReason.CONTAINER_STOPPED,
            ExitReason.MACHINE_LOST,
            ExitReason.INTERRUPTED,
        }

        async def is_recorded() -> bool:
            found = await later.services.processes.get(LOCAL_ACTOR, process.id)
            return found.status is ProcessStatus.FAILED

        await until(is_recorded)
        view = await later.services.tasks.get(LOCAL_ACTOR, attempt.task_id)
        assert view.task.status is TaskStatus.INREVIEW
        assert view.last_attempt_failed
        await later.end()


async def test_another_servers_projects_are_left_alone(tmp_path: Path) -> None:
    """A server with a home of its own does not take up what another one carries in the same database."""
    async with living(tmp_path / "home") as world:
        project = await world.project()
        process = await world.services.processes.exec(LOCAL_ACTOR, project.id, ["sleep", "600"])
        other = World(tmp_path / "other", world.engine, {}, world.db)
        await other.services.recover()
        await asyncio.sleep(0)
        assert other.services.runs.find(process.id) is None
        found = await world.services.processes.get(LOCAL_ACTOR, process.id)
        assert found.status is ProcessStatus.RUNNING
        await other.services.close()
        await other.processes.close()


async def test_what_a_dead_server_held_keeps_nothing_awake(tmp_path: Path) -> None:
    """The next life gives back the leases of the last one at once; what a user asked for stays."""
    async with living(tmp_path / "home") as world:
        project = await world.project()
        hold = await world.services.holds.take(
            LOCAL_ACTOR, project.id, reason="mine", length=timedelta(minutes=5)
        )
        left = replace(hold, id=LeaseId(new_id()), holder=new_id(), reason="command")
        await world.db.write(lease_rows.add, left)  # as a server leaves it that is killed
        later = await world.reborn()
        before = await later.services.leases.of(project.id)
        assert {lease.id for lease in before} == {hold.id, left.id}
        await later.services.recover()
        assert [lease.id for lease in await later.services.leases.of(project.id)] == [hold.id]
        await later.end()


async def test_what_a_cut_restore_staged_is_removed(tmp_path: Path) -> None:
    """A copy of a project that a dead server had half brought back takes no disk after the next start."""
    async with living(tmp_path / "home") as world:
        project = await world.project()
        staged = world.services.homes.staging(project.id, "x") / "workspace"
        staged.mkdir(parents=True)
        (staged / "file").write_text("half")
        later = await world.reborn()
        await later.services.recover()

        async def is_gone() -> bool:
            places = ("restores/*", "trash/*")
            return not [path for place in places for path in (tmp_path / "home").glob(place)]

        await until(is_gone)
        assert Path(project.path).is_dir()
        await later.end()
