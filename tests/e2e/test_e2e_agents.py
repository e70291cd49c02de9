"""The real coding agents, in a container, against a model that answers what the prompt spells out."""

import asyncio
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from anyon.agents.registry import find
from anyon.clock import SystemClock
from anyon.domain.ids import ProcessId, ProjectId, new_id
from anyon.domain.layout import HOME, RUN, WORKSPACE
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.engine import Channel, ContainerSpec, Mount
from anyon.processes.durable import DurableProcesses
from anyon.processes.processes import ProcessSpec
from anyon.testing.model_servers import ModelServer
from anyon.testing.model_servers_dialects import DIALECTS

ROOT = Path(__file__).parents[2]
PROGRAMS = PurePosixPath("/opt/agents")
PATH = f"{PROGRAMS}/node_modules/.bin:/usr/local/bin:/usr/bin:/bin"

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def programs() -> Path:
    """Return the directory with the agents' programs, installed from npm if they are not yet."""
    done = subprocess.run(
        [ROOT / "scripts" / "services" / "agents.sh", "start"],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    if done.returncode != 0:
        reason = f"the coding agents cannot be installed: {done.stderr[-2000:]}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return ROOT / ".cache" / "agents"


@dataclass
class Ran:
    """What one run of an agent came to."""

    code: int | None
    session: str | None
    stderr: str
    entries: list[Any] = field(default_factory=list)

    def tools(self) -> list[tuple[str, str]]:
        """Return the actions of the tool calls, each with its status."""
        kinds = [entry["entry_type"] for entry in self.entries]
        uses = [kind for kind in kinds if kind["type"] == "tool_use"]
        return [(use["action_type"]["action"], use["status"]["status"]) for use in uses]

    def said(self) -> list[str]:
        """Return what the agent said."""
        return [
            entry["content"]
            for entry in self.entries
            if entry["entry_type"]["type"] == "assistant_message"
        ]


class Sandbox:
    """A project's container with the agents' programs in it."""

    def __init__(self, directory: Path, engine: BubblewrapEngine, env: Mapping[str, str]) -> None:
        self.workspace = directory / "workspace"
        self.project = ProjectId(new_id())
        self.processes = DurableProcesses(engine, lambda _: directory / "run", SystemClock())
        self._directory = directory
        self._engine = engine
        self._env = env

    async def start(self, programs: Path) -> None:
        """Make and start the container."""
        for name in ("workspace", "home", "run", "system"):
            (self._directory / name).mkdir()
        mounts = [
            Mount(source=self.workspace, target=WORKSPACE),
            Mount(source=self._directory / "home", target=HOME),
            Mount(source=self._directory / "run", target=RUN),
            Mount(source=programs, target=PROGRAMS, read_only=True),
        ]
        await self._engine.ensure(
            ContainerSpec(project=self.project, mounts=mounts, system=self._directory / "system")
        )
        await self._engine.start(self.project)

    async def run(
        self, name: str, prompt: str, session: str | None = None, *, with_key: bool = True
    ) -> Ran:
        """Run an agent to its end and read what it printed, as it came."""
        agent = find(name)
        variant = agent.variants["DEFAULT"]
        launch = agent.launch(prompt, variant=variant, session_id=session)
        process = ProcessId(new_id())
        passed = {key: value for key, value in self._env.items() if key in agent.passed_env}
        spec = ProcessSpec(
            id=process,
            argv=launch.argv,
            stdin=launch.stdin,
            env={**launch.env, **passed, "PATH": PATH},
            secrets={agent.secret_names[0]: "sk-not-a-key"} if with_key else {},
            timeout=timedelta(seconds=120),
        )
        await self.processes.start(self.project, spec)
        reader = agent.reader()
        patches, stderr = [], b""
        async for chunk in self.processes.follow(self.project, process):
            is_error = chunk.channel is Channel.STDERR
            patches += reader.feed(chunk.data, stderr=is_error)
            stderr += chunk.data if is_error else b""
        ended = await self.processes.wait(self.project, process)
        patches += reader.finish(ended.code)
        entries: list[Any] = []
        for patch in patches:
            entries[patch.index : patch.index + 1] = [patch.entry]
        return Ran(ended.code, reader.session_id, stderr.decode("utf-8", "replace"), entries)


@pytest.fixture
async def model():
    """A model on loopback, which speaks the APIs of both agents."""
    async with ModelServer(DIALECTS) as server:
        yield server


@pytest.fixture
async def sandbox(tmp_path, programs, model):
    """A running container whose agents are sent to that model."""
    engine = BubblewrapEngine(tmp_path / "engine", hidden=[tmp_path])
    env = {"ANTHROPIC_BASE_URL": model.url, "OPENAI_BASE_URL": f"{model.url}/v1"}
    box = Sandbox(tmp_path, engine, env)
    await box.start(programs)
    yield box
    await box.processes.close()
    await engine.remove(box.project)
    await engine.close()


@pytest.mark.parametrize("name", ["claude-code", "codex"])
async def test_a_real_agent_works_and_goes_on(sandbox, model, name) -> None:
    """It writes a file, runs a command and ends; a follow-up knows what was before and adds to it."""
    first = await sandbox.run(
        name,
        "Hello.\n@write notes.txt made by the agent\n@run cat notes.txt && pwd\n@say The first is done.",
    )
    assert first.code == 0, first
    assert (sandbox.workspace / "notes.txt").read_text() == "made by the agent\n"
    assert first.tools() == [("file_edit", "success"), ("command_run", "success")]
    outputs = [
        entry["entry_type"]["action_type"]["result"]["output"]
        for entry in first.entries
        if entry["entry_type"].get("action_type", {}).get("action") == "command_run"
    ]
    assert "made by the agent" in outputs[0]
    assert str(WORKSPACE) in outputs[0]
    assert first.said() == ["The first is done."]
    assert first.session

    second = await sandbox.run(
        name, "@run cp notes.txt more.txt; exit 3\n@say Again.", first.session
    )
    assert second.code == 0, second
    assert (sandbox.workspace / "more.txt").exists()
    assert second.tools() == [("command_run", "failed")]
    assert second.said() == ["Again."]
    assert second.session
    assert second.session != first.session
    assert "The first is done." in str(model.requests[-1])


async def test_two_agents_work_at_once(sandbox) -> None:
    """Both run side by side in one container, each on its own file."""
    ran = await asyncio.gather(
        *(
            sandbox.run(name, f"@write {name}.txt x\n@say {name} is done.")
            for name in ("claude-code", "codex")
        )
    )
    assert [(one.code, one.said()) for one in ran] == [
        (0, ["claude-code is done."]),
        (0, ["codex is done."]),
    ]
    assert {path.name for path in sandbox.workspace.glob("*.txt")} == {
        "claude-code.txt",
        "codex.txt",
    }


async def test_without_a_key_claude_says_what_to_do(sandbox, model) -> None:
    """The control of the above: with no key nothing is asked of the model, and the set-up is offered."""
    ran = await sandbox.run("claude-code", "@write notes.txt x", with_key=False)
    assert ran.code != 0
    errors = [
        entry["entry_type"]["error_type"]["type"]
        for entry in ran.entries
        if entry["entry_type"]["type"] == "error_message"
    ]
    assert "setup_required" in errors
    assert not model.requests
    assert not (sandbox.workspace / "notes.txt").exists()
