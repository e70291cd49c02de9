"""The soak's negative control: a real server that leaks something at each task is told so."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyon.sdk.clients import Client
from anyon.sdk.requests import CreateProject, CreateTask
from anyon.testing.leaks import Subject, read, trends
from anyon.testing.servers import ServerProcess
from anyon.testing.worlds import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROUNDS = 8
TASKS_IN_ROUND = 2
LEAKED_BYTES = 1_000_000
_PROGRAM = f"""#!{sys.executable}
import os, subprocess, threading
from anyon.cli.main import main
from anyon.services.tasks import Tasks

kept = []
create = Tasks.create


async def leaking(self, *arguments, **more):
    kept.append(os.urandom({LEAKED_BYTES}))
    kept.append(os.open("/dev/null", os.O_RDONLY))
    kept.append(subprocess.Popen(["true"]))
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    return await create(self, *arguments, **more)


Tasks.create = leaking
main()
"""


@pytest.fixture
def leaking_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that keeps some memory, a descriptor, a dead child and a thread for each new task."""
    program = tmp_path / "anyon"
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    settings = {"ANYON_DEFAULT_AGENT": "SHELL", "ANYON_STORE": "none"}
    server = ServerProcess(tmp_path / "home", "memory", settings, program=program)
    server.start()
    try:
        yield server
    finally:
        server.kill()


async def test_leaks_that_were_planted_are_seen(leaking_server: ServerProcess) -> None:
    """Memory, descriptors, threads and zombies of one for each task grow by a thousand in a thousand tasks."""
    readings = []
    async with Client(leaking_server.address) as client:
        project = await client.projects.create(CreateProject(name="leaking"))
        subject = Subject(
            pid=leaking_server.pid, home=leaking_server.home, marks=frozenset({str(project.id)})
        )

        async def is_over() -> bool:
            tasks = await client.tasks.list(project.id)
            return not any(task.has_in_progress_attempt for task in tasks)

        for count in range(TASKS_IN_ROUND, (ROUNDS + 1) * TASKS_IN_ROUND, TASKS_IN_ROUND):
            for _ in range(TASKS_IN_ROUND):
                await client.tasks.create(CreateTask(project_id=project.id, description="true"))
            await until(is_over)
            readings.append(read(subject, count))
    found = {one.quantity: one for one in trends(readings)}
    for quantity, each in {
        "memory_bytes": LEAKED_BYTES,
        "file_descriptors": 1,
        "threads": 1,
        "zombies": 1,
        "rows": 1,
    }.items():
        assert not found[quantity].is_flat, quantity
        assert found[quantity].growth > 700 * each, quantity  # what else goes on may hide some
    assert found["networks"].is_flat
