"""A terminal holds its project awake while somebody types; open and idle it holds nothing."""

import asyncio
from datetime import timedelta

import pytest
from tests.lifecycle.conftest import Life, is_free

from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.domain.errors import ConflictError
from anyon.domain.states import Phase
from anyon.engines.engine import Command, Stream, TerminalSize
from anyon.testing.worlds import until

MINUTE = timedelta(minutes=1)
TALKATIVE = "while read line; do echo got-$line; done"


async def opened(life: Life, project: Project, script: str) -> Stream:
    """Open a terminal that runs *script*."""
    command = Command(argv=["sh", "-c", script], terminal=TerminalSize(columns=80, rows=24))
    return await life.world.services.containers.open_shell(LOCAL_ACTOR, project.id, command)


async def shown(stream: Stream, word: bytes) -> None:
    """Read until *word* was shown."""
    seen = b""
    async with asyncio.timeout(60):
        while word not in seen:
            piece = await stream.read()
            assert piece is not None, seen
            seen += piece[1]


async def pass_minutes(life: Life, count: int) -> None:
    """Let minutes pass one by one, so that each of the server's waits ends at its time."""
    for _ in range(count):
        await life.pass_time(MINUTE)
        await asyncio.sleep(0.01)


async def test_typing_holds_awake_and_thaws(life: Life) -> None:
    """Keys hold for ten minutes; then the project freezes with its terminal, and the next key goes on in it."""
    project = await life.world.project()
    stream = await opened(life, project, TALKATIVE)
    await pass_minutes(life, 9)
    await stream.write(b"one\n")
    await shown(stream, b"got-one")
    await pass_minutes(life, 9)
    assert await life.phase(project) is Phase.RUNNING
    assert not await is_free(life, project)
    await life.pass_time(MINUTE)
    await until(lambda: is_free(life, project))
    await life.pass_time(6 * MINUTE)
    assert await life.phase(project) is Phase.FROZEN
    await stream.resize(TerminalSize(columns=91, rows=17))
    await stream.write(b"two\n")
    await shown(stream, b"got-two")
    assert await life.phase(project) is Phase.RUNNING
    assert not await is_free(life, project)
    await stream.close()
    assert await is_free(life, project)


async def test_output_is_no_activity(life: Life) -> None:
    """A terminal that only prints lets its project sleep; stopped, it ends with that reason, reading and typing."""
    project = await life.world.project()
    stream = await opened(life, project, "while true; do echo noise; sleep 0.1; done")
    await shown(stream, b"noise")
    await life.pass_time(11 * MINUTE)
    await until(lambda: is_free(life, project))
    await life.pass_time(31 * MINUTE)
    assert await life.phase(project) is Phase.STOPPED
    with pytest.raises(ConflictError) as caught:
        await shown(stream, b"never")
    assert caught.value.code == "project_stopped"
    with pytest.raises(ConflictError) as caught:
        await stream.write(b"x")
    assert caught.value.code == "project_stopped"
    assert await life.phase(project) is Phase.STOPPED
    await stream.close()


async def test_a_shell_that_ends_by_itself_says_no_such_thing(life: Life) -> None:
    """The reason is for projects that were stopped: an ended shell has its exit code."""
    project = await life.world.project()
    stream = await opened(life, project, "exit 7")
    async with asyncio.timeout(60):
        while await stream.read() is not None:
            pass
        assert await stream.wait() == 7
    await stream.close()
