"""A task that the real Claude Code does, through the whole server: from its creation to the merge."""

import asyncio
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from anyon.api.servers import Server
from anyon.config import load
from anyon.sdk.clients import Client
from anyon.sdk.errors import ApiError
from anyon.sdk.models import ExecutorProfileId
from anyon.sdk.requests import CreateAndStartTask, CreateProject, CreateTask, Exec, FollowUp
from anyon.testing.model_servers import ModelServer
from anyon.testing.model_servers_dialects import DIALECTS
from anyon.wiring.assembly import assembled

ROOT = Path(__file__).parents[2]
CLAUDE = Path("node_modules/@anthropic-ai/claude-code/bin/claude.exe")

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def claude() -> Path:
    """Return Claude Code's program, installed from npm if it is not yet."""
    script = ROOT / "scripts" / "services" / "agents.sh"
    done = subprocess.run(
        [script, "start"], capture_output=True, text=True, timeout=400, check=False
    )
    program = ROOT / ".cache" / "agents" / CLAUDE
    if done.returncode != 0 or not program.exists():
        reason = f"Claude Code cannot be installed: {done.stderr[-2000:]}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return program


@pytest.fixture
async def client(tmp_path, monkeypatch):
    """A client of a whole server over bubblewrap, whose agents are sent to a scripted model."""
    async with ModelServer(DIALECTS) as model:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", model.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-not-a-key")
        home = tmp_path / "anyon"
        home.mkdir()
        settings = replace(load({"HOME": str(tmp_path)}), home=home, engine="bubblewrap")
        async with assembled(settings) as anyon:
            server = Server(anyon.app, host="127.0.0.1", port=0)
            serving = asyncio.create_task(server.serve())
            while not server.started:
                assert not serving.done(), "the server did not start"
                await asyncio.sleep(0.01)
            async with Client(f"http://127.0.0.1:{server.port}") as one:
                yield one
            server.should_exit = True
            await serving
            for container in await anyon.engine.list():
                await anyon.engine.remove(container.project)


async def until_over(client: Client, attempt: Any, *, processes: int) -> None:
    """Wait until the attempt has had so many agent's processes, and its task is in review."""
    async with asyncio.timeout(120):
        while True:
            agents = [
                one
                for one in await client.attempts.processes(attempt.id)
                if one.run_reason == "codingagent" and one.status != "running"
            ]
            task = await client.tasks.get(attempt.task_id)
            if len(agents) >= processes and task.status == "inreview":
                return
            await asyncio.sleep(0.1)


async def conversation(client: Client, process: Any) -> list[dict[str, Any]]:
    """Read the normalised log of a process that is over, as the front end does."""
    address = client.base_url.replace("http", "ws", 1)
    url = f"{address}/api/execution-processes/{process.id}/normalized-logs/ws"
    entries: list[Any] = []
    async with asyncio.timeout(60), connect(url) as socket:
        async for frame in socket:
            message = json.loads(frame)
            if message.get("finished"):
                break
            for change in message["JsonPatch"]:
                if change["path"] == "/entries":
                    entries = list(change["value"])
                    continue
                index = int(change["path"].removeprefix("/entries/"))
                entries[index : index + 1] = [change["value"]]
    return [entry["content"] for entry in entries]


async def test_claude_code_does_a_task(client, claude) -> None:
    """Missing it is a clear error; installed in the project it works, goes on, and is merged."""
    project = await client.projects.create(CreateProject(name="shop"))
    new = CreateAndStartTask(
        task=CreateTask(
            project_id=project.id,
            title="Write the notes",
            description="@write notes.txt by Claude\n@run cat notes.txt\n@say It is written.",
        ),
        executor_profile_id=ExecutorProfileId(executor="CLAUDE_CODE"),
    )
    with pytest.raises(ApiError) as refused:
        await client.tasks.create_and_start(new)
    assert refused.value.code == "agent_missing"
    assert "@anthropic-ai/claude-code" in refused.value.hint

    given = Path(project.git_repo_path) / "claude"
    try:
        given.hardlink_to(claude)
    except OSError:  # another file system
        await asyncio.to_thread(shutil.copy, claude, given)
    argv = ["mv", "/workspace/claude", "/usr/local/bin/claude"]
    installed = await client.projects.exec(project.id, Exec(argv=argv))
    assert (await client.processes.wait(installed.id)).exit_code == 0

    task = await client.tasks.create_and_start(new)
    [attempt] = await client.attempts.list(task.id)
    await until_over(client, attempt, processes=1)
    [process] = await client.attempts.processes(attempt.id)
    said = [entry["content"] for entry in await conversation(client, process)]
    assert process.exit_code == 0, said
    assert said[-1] == "It is written."
    [change] = await client.attempts.diff(attempt.id)
    assert (change.change, change.new_path, change.new_content) == (
        "added",
        "notes.txt",
        "by Claude\n",
    )

    await client.attempts.follow_up(
        attempt.id, FollowUp(prompt="@run echo more >> notes.txt\n@say More is there.")
    )
    await until_over(client, attempt, processes=2)
    await client.attempts.merge(attempt.id)
    listed = await client.projects.exec(project.id, Exec(argv=["cat", "/workspace/notes.txt"]))
    await client.processes.wait(listed.id)
    assert (await client.processes.output(listed.id)).data == b"by Claude\nmore\n"
    assert (await client.tasks.get(task.id)).status == "done"
