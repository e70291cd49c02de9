"""Commands: durable, read by offset, killed whole; secrets unrecorded."""

from datetime import timedelta

import pytest

from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.errors import AnyonError, ConflictError, EngineUnavailableError
from anyon.domain.states import ExitReason, ProcessStatus
from anyon.engines.engine import Channel, Command, TerminalSize
from anyon.testing.worlds import World, until


async def test_exec(world: World) -> None:
    """A command runs in the workspace with its environment and stdin; both outputs can be read by offset."""
    project = await world.project()
    words = ["sh", "-c", 'pwd; printf %s "$WORD"; cat; echo err >&2; exit 3']
    process = await world.services.processes.exec(
        LOCAL_ACTOR, project.id, words, env={"WORD": "a secret"}, stdin=b"in\xff"
    )
    assert await world.printed(process) == b"/workspace\na secretin\xff"
    assert await world.printed(process, Channel.STDERR) == b"err\n"
    chunk = await world.services.processes.output(LOCAL_ACTOR, process.id, Channel.STDOUT, 11, 8)
    assert chunk.data == b"a secret"

    async def is_recorded() -> bool:
        found = await world.services.processes.get(LOCAL_ACTOR, process.id)
        return found.status is ProcessStatus.FAILED and found.exit_code == 3

    await until(is_recorded)
    assert b"a secret" not in (world.home / "anyon.db").read_bytes()
    assert b"a secret" not in (world.home / "anyon.db-wal").read_bytes()


async def test_what_cannot_start_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose container cannot be woken is refused to its caller, and recorded as failed."""
    project = await world.project()
    await world.engine.stop(project.id, grace=timedelta(0))

    async def down(*_: object) -> None:
        raise EngineUnavailableError("the engine is away")

    monkeypatch.setattr(world.engine, "start", down)
    with pytest.raises(EngineUnavailableError):
        await world.services.processes.exec(LOCAL_ACTOR, project.id, ["true"])
    (process,) = await world.services.processes.list(LOCAL_ACTOR, project.id)
    assert (process.status, process.exit_reason) == (
        ProcessStatus.FAILED,
        ExitReason.INTERRUPTED,
    )


async def test_kill(world: World) -> None:
    """A kill ends the whole tree and keeps the output; a second one changes nothing."""
    project = await world.project()
    words = ["sh", "-c", "echo begun; sleep 600 & sleep 600"]
    process = await world.services.processes.exec(LOCAL_ACTOR, project.id, words)
    killed = await world.services.processes.kill(LOCAL_ACTOR, process.id)
    assert killed.status is ProcessStatus.KILLED
    assert killed == await world.services.processes.kill(LOCAL_ACTOR, process.id)
    assert await world.printed(process) in {b"begun\n", b""}
    assert list(await world.services.leases.of(project.id)) == []


async def test_a_running_process_holds_its_project_awake(world: World) -> None:
    """While a process runs, a lease names it as the holder; afterwards there is none."""
    project = await world.project()
    process = await world.services.processes.exec(LOCAL_ACTOR, project.id, ["sleep", "600"])
    (lease,) = await world.services.leases.of(project.id)
    assert (lease.holder, lease.reason) == (process.id, "command")
    await world.services.processes.kill(LOCAL_ACTOR, process.id)
    assert list(await world.services.leases.of(project.id)) == []


async def test_only_agents_converse(world: World) -> None:
    """The conversation of a command is refused; an empty command too."""
    project = await world.project()
    process = await world.services.processes.exec(LOCAL_ACTOR, project.id, ["true"])
    with pytest.raises(ConflictError) as caught:
        _ = [x async for x in world.services.processes.conversation(LOCAL_ACTOR, process.id)]
    assert caught.value.code == "not_an_agent"
    with pytest.raises(AnyonError) as refused:
        await world.services.processes.exec(LOCAL_ACTOR, project.id, [])
    assert refused.value.code == "argv_empty"


async def test_a_shell_holds_its_project_until_it_is_closed(world: World) -> None:
    """A terminal is opened in the container and holds it awake for exactly as long as it is open."""
    project = await world.project()
    command = Command(argv=["sh", "-c", "tty; read x"], terminal=TerminalSize(columns=80, rows=24))
    stream = await world.services.containers.open_shell(LOCAL_ACTOR, project.id, command)
    assert await stream.read() is not None
    (lease,) = await world.services.leases.of(project.id)
    assert lease.reason == "terminal"
    await stream.close()
    await stream.close()
    assert list(await world.services.leases.of(project.id)) == []
