"""Terminals over a WebSocket: bytes both ways, size, exit."""

import asyncio

import pytest
from tests.api.conftest import Running

from anyon.api.terminals import resize_of
from anyon.domain.ids import ProjectId
from anyon.domain.states import Phase
from anyon.engines.engine import TerminalSize
from anyon.sdk.errors import UnreachableError
from anyon.sdk.requests import CreateProject
from anyon.sdk.terminals import Terminal


async def until(terminal: Terminal, word: bytes) -> bytes:
    """Read until *word* was shown."""
    shown = b""
    async with asyncio.timeout(60):
        while word not in shown:
            piece = await terminal.read()
            assert piece is not None, shown
            shown += piece
    return shown


async def test_a_shell_is_typed_into_and_ends_with_its_code(server: Running) -> None:
    """What is typed is run, the size is true and follows, and the exit code comes at the end."""
    project = await server.client.projects.create(CreateProject(name="p"))
    async with server.client.projects.terminal(project.id, columns=91, rows=17) as terminal:
        await terminal.write(b"stty size; echo 'st'arted\n")
        assert b"17 91" in await until(terminal, b"started")
        await terminal.resize(101, 19)
        await terminal.write(b"stty size; pwd; echo 'do'ne\n")
        shown = await until(terminal, b"done")
        assert b"19 101" in shown
        assert b"/workspace" in shown
        await terminal.write(b"exit 7\n")
        async with asyncio.timeout(60):
            while await terminal.read() is not None:
                pass
        assert terminal.exit_code == 7


async def test_a_client_that_leaves_ends_its_program(server: Running) -> None:
    """A closed terminal leaves no program behind that was not told to stay."""
    project = await server.client.projects.create(CreateProject(name="p"))
    command = "echo $$ > pid; echo started; exec sleep 600"
    async with server.client.projects.terminal(project.id, command=command) as terminal:
        await until(terminal, b"started")
    script = "while kill -0 $(cat pid) 2>/dev/null; do sleep 0.1; done; echo gone"
    async with server.client.projects.terminal(project.id, command=script) as terminal:
        await until(terminal, b"gone")


async def test_a_terminal_of_a_stopped_project_ends_with_that_reason(server: Running) -> None:
    """When its project is stopped under it, the client is told so, not an exit code."""
    project = await server.client.projects.create(CreateProject(name="p"))
    async with server.client.projects.terminal(project.id, command="echo on; cat") as terminal:
        await until(terminal, b"on")
        containers, key = server.services.containers, ProjectId(str(project.id))
        await containers.record(key, Phase.STOPPING, reason="test")
        await containers.halt(key)
        with pytest.raises(UnreachableError, match="project_stopped"):
            await until(terminal, b"what never comes")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        '{"resize": 3}',
        '{"resize": {"columns": 0, "rows": 1}}',
        '{"resize": {"columns": 1e9, "rows": 1}}',
        '{"resize": {"columns": 1e999, "rows": 1}}',
        '{"resize": {"rows": 1}}',
        "[" * 100_000,
    ],
)
def test_a_senseless_size_is_left_alone(text: str) -> None:
    """A text frame that is no size changes nothing and breaks nothing."""
    assert resize_of(text) is None
    assert resize_of('{"resize": {"columns": 80, "rows": 24}}') == TerminalSize(columns=80, rows=24)
