"""The main job over the wire: project, tasks, logs, diff, merge; and the plan's own curl calls."""

import asyncio
import json

import pytest
from tests.api.conftest import Running

from anyon.api.apps import begin_shutdown
from anyon.sdk.errors import ApiError
from anyon.sdk.requests import (
    CreateAndStartTask,
    CreateProject,
    CreateTask,
    Exec,
    FollowUp,
    UpdateProject,
    UpdateTask,
)

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def until_over(server: Running, task: object) -> None:
    """Wait until no process of the task runs."""
    async with asyncio.timeout(60):
        async for frame in server.client.tasks.watch(await _project_of(server, task)):
            shown = [op.get("value", {}) for op in frame["JsonPatch"]]
            views = [one.get(str(task), one) for one in shown]
            if any(
                one.get("id") == str(task) and not one["has_in_progress_attempt"] for one in views
            ):
                return


async def _project_of(server: Running, task: object) -> str:
    return str((await server.client.tasks.get(str(task))).project_id)


async def test_a_task_from_its_creation_to_its_merge(server: Running) -> None:
    """Made and started in one call, followed to its end, looked at, followed up, merged."""
    client = server.client
    project = await client.projects.create(CreateProject(name="shop"))
    new = CreateTask(
        project_id=project.id, title="Say hello", description="echo 안녕; echo hello > hello.txt"
    )
    task = await client.tasks.create_and_start(CreateAndStartTask(task=new))
    [attempt] = await client.attempts.list(task.id)
    assert attempt.executor == "SHELL"
    assert attempt.target_branch == "main"
    [process] = await client.attempts.processes(attempt.id)
    output = b"".join(
        [one.data async for one in client.processes.follow(process.id) if one.channel == "stdout"]
    )
    assert output.decode() == "안녕\n"
    await until_over(server, task.id)
    assert (await client.tasks.get(task.id)).status == "inreview"
    [change] = await client.attempts.diff(attempt.id)
    assert (change.change, change.new_path, change.new_content) == ("added", "hello.txt", "hello\n")
    [stats] = await client.attempts.diff(attempt.id, stats_only=True)
    assert (stats.content_omitted, stats.new_content, stats.additions) == (True, None, 1)
    more = await client.attempts.follow_up(attempt.id, FollowUp(prompt="echo more > more.txt"))
    assert more.executor_action["typ"]["type"].startswith("CodingAgent")
    await until_over(server, task.id)
    assert (await client.attempts.status(attempt.id)).commits_ahead
    await client.attempts.merge(attempt.id)
    status = await client.attempts.status(attempt.id)
    assert status.merges[0].target_branch_name == "main"
    done = await client.tasks.get(task.id)
    assert (done.status, done.has_merged_attempt) == ("done", True)
    listed = await client.projects.exec(project.id, Exec(argv=["cat", "hello.txt", "more.txt"]))
    ended = await client.processes.wait(listed.id)
    assert ended.exit_code == 0
    chunk = await client.processes.output(listed.id)
    assert (chunk.data, chunk.finished) == (b"hello\nmore\n", True)


async def test_the_plans_calls_work_as_they_are_typed(server: Running) -> None:
    """A JSON body under curl's own content type, no title: the task is made and started."""
    async with server.http as http:
        body = json.dumps({"name": "test-project", "git_repo_path": ""})
        made = (await http.post("/api/projects", content=body, headers=FORM)).json()
        assert set(made) == {"success", "data", "error_data", "message"}
        project = made["data"]["id"]
        words = {"project_id": project, "description": "echo one > file\necho two"}
        answer = await http.post("/api/tasks", content=json.dumps(words), headers=FORM)
        assert answer.status_code == 200, answer.text
        task = answer.json()["data"]
        assert task["title"] == "echo one > file"
        assert task["executor"] == "SHELL"
        listed = (await http.get("/api/projects")).json()["data"]
        assert [one["id"] for one in listed] == [project]
        metrics = await http.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain")
        assert "anyon_containers_total" in metrics.text
        assert 'route="/api/projects"' in metrics.text
        named = await http.get(f"/api/projects/{project}")
        assert named.status_code == 200
        await http.request("BREW", "/api/projects")
        metrics = await http.get("/metrics")
        assert 'route="/api/projects/{project_id}"' in metrics.text
        assert f'projects/{project}"' not in metrics.text  # a series a path would never end
        assert "BREW" not in metrics.text
    await until_over(server, task["id"])


async def test_changes_and_their_rules(server: Running) -> None:
    """Null keeps a name and clears a script; a blank description is cleared; deletion is 202."""
    client = server.client
    project = await client.projects.create(CreateProject(name="one", setup_script="true"))
    changed = await client.projects.update(project.id, UpdateProject(name="two"))
    assert (changed.name, changed.setup_script) == ("two", None)
    task = await client.tasks.create(CreateTask(project_id=project.id, title="t", description="d"))
    assert task.status == "todo"
    kept = await client.tasks.update(task.id, UpdateTask(status="done"))
    assert (kept.title, kept.description, kept.status) == ("t", "d", "done")
    cleared = await client.tasks.update(task.id, UpdateTask(description=" "))
    assert cleared.description is None
    async with server.http as http:
        assert (await http.delete(f"/api/tasks/{task.id}")).status_code == 202
    assert await client.tasks.list(project.id) == []
    await client.projects.delete(project.id)
    with pytest.raises(ApiError) as caught:
        await client.projects.get(project.id)
    assert (caught.value.status, caught.value.code) == (404, "project_unknown")


async def test_a_start_that_fails_leaves_no_task(server: Running) -> None:
    """One call, one outcome: an unknown agent or branch is an error, and nothing is left."""
    client = server.client
    project = await client.projects.create(CreateProject(name="p"))
    new = {"project_id": str(project.id), "title": "t", "description": "d"}
    async with server.http as http:
        for more, code in (
            ({"executor_profile_id": {"executor": "NOBODY"}}, "agent_unknown"),
            ({"base_branch": "nowhere"}, "branch_unknown"),
        ):
            body = {"task": new, **more}
            answer = await http.post("/api/tasks/create-and-start", json=body)
            assert answer.json()["error_data"]["code"] == code, answer.text
    assert await client.tasks.list(project.id) == []


async def test_the_end_of_a_task_is_waited_for_in_one_request(server: Running) -> None:
    """``wait`` answers at the end and not before, at its own end too, and at once where nothing runs."""
    client = server.client
    project = await client.projects.create(CreateProject(name="p", default_agent="SHELL"))
    gate = "until [ -e /workspace/go ]; do sleep 0.05; done"
    task = await client.tasks.create(CreateTask(project_id=project.id, description=gate))
    async with server.http as http:
        path = f"/api/tasks/{task.id}"
        cut = await http.get(path, params={"wait": 0.2})
        assert cut.json()["data"]["has_in_progress_attempt"] is True
        waiting = asyncio.create_task(client.tasks.ended(task.id))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await client.projects.exec(project.id, Exec(argv=["touch", "/workspace/go"]))
        async with asyncio.timeout(60):
            ended = await waiting
        assert (ended.status, ended.has_in_progress_attempt) == ("inreview", False)
        again = await http.get(path, params={"wait": 60})
        assert again.json()["data"]["status"] == "inreview"
        for bad in ("-1", "61", "x"):
            assert (await http.get(path, params={"wait": bad})).status_code == 400, bad


async def test_a_shutdown_ends_a_wait_for_a_task(server: Running) -> None:
    """A server that closes answers who waits, with the task as it stands."""
    client = server.client
    project = await client.projects.create(CreateProject(name="p", default_agent="SHELL"))
    task = await client.tasks.create(CreateTask(project_id=project.id, description="sleep 60"))
    async with server.http as http:
        waiting = asyncio.create_task(http.get(f"/api/tasks/{task.id}", params={"wait": 60}))
        await asyncio.sleep(0.2)
        begin_shutdown(server.app)
        async with asyncio.timeout(30):
            answer = await waiting
    assert answer.json()["data"]["has_in_progress_attempt"] is True
