"""No input makes a mistake of the server's: schemathesis over the OpenAPI document."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from schemathesis import GenerationMode
from tests.api.conftest import Running, running

from anyon.config import Settings
from anyon.sdk.requests import CreateAndStartTask, CreateProject, CreateTag, CreateTask

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLES = 12
"""For each operation and kind of data, with ids made up and with ids that exist: about 2,000."""
ENDLESS = {"GET /api/projects/{project_id}/events/stream"}
"""What is there streams for ever: these are asked for things that are not there only."""
KEYS = {"success", "data", "error_data", "message"}


@dataclass
class Target:
    """A server in a thread of its own, and the ids of things that are there."""

    base_url: str = ""
    ids: dict[str, str] = field(default_factory=dict)


async def make_things(server: Running) -> dict[str, str]:
    """Return the ids of a project, a task that has run, and what belongs to it."""
    client = server.client
    project = await client.projects.create(CreateProject(name="there"))
    new = CreateTask(project_id=project.id, title="t", description="write file text")
    task = await client.tasks.create_and_start(CreateAndStartTask(task=new))
    [attempt] = await client.attempts.list(task.id)
    [process] = await client.attempts.processes(attempt.id)
    await client.processes.wait(process.id)
    return {
        "project_id": str(project.id),
        "task_id": str(task.id),
        "attempt_id": str(attempt.id),
        "task_attempt_id": str(attempt.id),
        "process_id": str(process.id),
        "image_id": str((await client.images.upload("x.svg", b"<svg/>", task=task.id)).id),
        "tag_id": str((await client.tags.create(CreateTag(tag_name="x", content="x"))).id),
    }


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Run a server for all examples."""
    home = tmp_path_factory.mktemp("fuzz") / "home"
    ready, over, found = threading.Event(), threading.Event(), Target()

    async def serve() -> None:
        async with running(Settings(home=home, engine="memory", default_agent="SCRIPTED")) as one:
            found.base_url, found.ids = one.base_url, await make_things(one)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(120)
        yield found
    finally:
        over.set()
        thread.join(120)


def attack(operation: schemathesis.Case, mode: GenerationMode, ids: dict[str, str]) -> bool:
    """Send what is made for one operation, *ids* in the place of those made up; say if any was accepted."""
    accepted = []

    @seed(1)
    @settings(
        max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def answers(case: schemathesis.Case) -> None:
        for place in (case.path_parameters, case.query, case.body):
            if isinstance(place, dict):
                place.update({key: ids[key] for key in place if key in ids})
        response = case.call()
        assert response.status_code < 500, (operation.label, response.text)
        accepted.append(response.status_code < 300)
        kind = response.headers.get("content-type", [""])[0]
        if kind.startswith("application/json"):
            assert set(response.json()) == KEYS

    answers()
    return any(accepted)


def test_no_input_is_a_mistake_of_the_servers(target: Target) -> None:
    """Whatever is sent to whatever route, the answer is no 5xx, and JSON is in the envelope."""
    document = schemathesis.openapi.from_url(f"{target.base_url}/api/openapi.json", timeout=120)
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) >= 35
    # What deletes comes last, so that the others find something.
    reached = set()
    for operation in sorted(operations, key=lambda one: one.method == "delete"):
        if operation.method == "get" and not list(operation.iter_parameters()):
            continue  # nothing can be varied: the other tests call it
        for mode in GenerationMode:
            for ids in ({},) if operation.label in ENDLESS else ({}, target.ids):
                if attack(operation, mode, ids):
                    reached.add(operation.label)
    assert len(reached) >= 20, reached  # the control: it is not all refused at the door
