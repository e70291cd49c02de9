"""A project's life over HTTP: who holds it awake, what happened, its checkpoints."""

import asyncio
from datetime import timedelta

import pytest
from tests.api.conftest import Running

from anyon.domain.ids import ProjectId
from anyon.sdk.errors import ApiError
from anyon.sdk.requests import CreateProject, CreateTask, Exec, Hold, RestoreWork, UpdateProject
from anyon.testing.worlds import until


async def test_who_holds_a_project_awake_is_told(server: Running) -> None:
    """A running process is a holder with a reason; without holders the next step down has a time."""
    project = await server.client.projects.create(CreateProject(name="demo"))
    idle = await server.client.lives.awake(project.id)
    assert idle.leases == []
    assert idle.next_step == "freeze"
    assert idle.next_step_at is not None
    process = await server.client.projects.exec(project.id, Exec(argv=["sleep", "1000"]))
    busy = await server.client.lives.awake(project.id)
    assert [lease.reason for lease in busy.leases] != []
    assert busy.next_step is None
    await server.client.processes.stop(process.id)


async def test_events_are_read_on_from_a_number(server: Running) -> None:
    """What happened is listed in order, and a reader goes on after the last number it saw."""
    project = await server.client.projects.create(CreateProject(name="demo"))
    events = await server.client.lives.events(project.id)
    assert [event.kind for event in events][:1] == ["project.created"]
    assert await server.client.lives.events(project.id, after=events[-1].sequence) == []


async def test_a_project_goes_back_to_a_checkpoint(server: Running) -> None:
    """Save, change, restore: the files are as they were, and the list shows both states."""
    client = server.client
    project = await client.projects.create(CreateProject(name="demo"))

    async def run(script: str) -> None:
        done = await client.projects.exec(project.id, Exec(argv=["sh", "-c", script]))
        assert (await client.processes.wait(done.id)).exit_code == 0
        await until(is_free)  # its lease goes a moment after its end is told

    async def is_free() -> bool:
        return not (await client.lives.awake(project.id)).leases

    await run("echo one > file")
    saved = await client.lives.save(project.id)
    await run("echo two > file")
    await client.lives.restore(project.id, saved.id)
    await run("test $(cat file) = one")
    reasons = [one.reason for one in await client.lives.checkpoints(project.id)]
    # What is there now was saved before it, and what was brought back after it.
    wanted = ["restored", "before_restore", "asked"]
    assert [one for one in reasons if one in wanted] == wanted
    for read_data in (False, True):
        seen = await client.lives.verify(project.id, saved.id, read_data=read_data)
        assert (seen.files, seen.problems) == (saved.files, [])


async def test_a_damaged_checkpoint_is_told(server: Running) -> None:
    """A verification finds that packs are gone from the store, and says so instead of failing."""
    client = server.client
    project = await client.projects.create(CreateProject(name="demo"))
    saved = await client.lives.save(project.id)
    store = server.services.homes.home / "store"
    packs = [path for path in store.rglob("*") if path.is_file() and "packs+" in path.parts]
    for pack in packs:
        pack.unlink()
    assert packs
    seen = await client.lives.verify(project.id, saved.id)
    assert seen.problems


async def test_an_unknown_checkpoint_changes_nothing(server: Running) -> None:
    """A restore of a checkpoint that is not there is 404 with its own code, and nothing is stopped."""
    project = await server.client.projects.create(CreateProject(name="demo"))
    with pytest.raises(ApiError) as refused:
        await server.client.lives.restore(project.id, "20260101T000000Z-nothing")
    assert refused.value.status == 404
    with pytest.raises(ApiError) as refused:
        await server.client.lives.verify(project.id, "20260101T000000Z-nothing")
    assert refused.value.status == 404
    assert (await server.client.lives.awake(project.id)).phase == "running"


async def test_a_foreign_project_has_no_life_to_show(server: Running) -> None:
    """An unknown id is 404 on each of these routes."""
    unknown = "00000000-0000-4000-8000-00000000abcd"
    for call in (
        server.client.lives.awake,
        server.client.lives.events,
        server.client.lives.checkpoints,
        server.client.lives.save,
        server.client.lives.stop,
        server.client.lives.archive,
        server.client.lives.start,
    ):
        with pytest.raises(ApiError) as refused:
            await call(unknown)
        assert refused.value.status == 404


async def test_a_hold_is_taken_shown_and_released(server: Running) -> None:
    """A hold is a holder with a reason and an end; released it is none. Too long a one is 422."""
    client = server.client
    project = await client.projects.create(CreateProject(name="demo"))
    hold = await client.lives.hold(project.id, Hold(reason="demo at noon", minutes=90))
    (shown,) = (await client.lives.awake(project.id)).leases
    assert shown == hold
    assert shown.is_hold
    assert shown.expires_at - shown.created_at == timedelta(minutes=90)
    await client.lives.release(project.id, hold.id)
    assert (await client.lives.awake(project.id)).leases == []
    with pytest.raises(ApiError) as refused:
        await client.lives.release(project.id, hold.id)
    assert (refused.value.status, refused.value.code) == (404, "hold_unknown")
    async with server.http as http:
        path = f"/api/projects/{project.id}/holds"
        assert (await http.post(path, json={"reason": "r", "minutes": 10081})).status_code == 422


async def test_a_project_is_stopped_by_name(server: Running) -> None:
    """Refused under work, which is named; forced it ends that; the goal stands until there is new work."""
    client = server.client
    project = await client.projects.create(CreateProject(name="demo"))
    process = await client.projects.exec(project.id, Exec(argv=["sleep", "1000"]))
    with pytest.raises(ApiError) as refused:
        await client.lives.stop(project.id)
    assert (refused.value.status, refused.value.code) == (409, "project_busy")
    assert str(process.id) in refused.value.message
    assert (await client.lives.awake(project.id)).goal == "running"
    stopped = await client.lives.stop(project.id, force=True)
    assert (stopped.goal, stopped.phase, stopped.leases) == ("stopped", "stopped", [])
    assert (await client.processes.get(process.id)).status == "killed"
    again = await client.lives.stop(project.id)
    assert (again.goal, again.phase) == ("stopped", "stopped")
    done = await client.projects.exec(project.id, Exec(argv=["true"]))
    assert (await client.processes.wait(done.id)).exit_code == 0
    awake = await client.lives.awake(project.id)
    assert (awake.goal, awake.phase) == ("running", "running")
    events = await client.lives.events(project.id)
    told = [(one.kind, one.reason) for one in events if one.kind.startswith("goal.")]
    assert told == [("goal.stopped", "forced"), ("goal.running", "work")]
    assert all(one.request_id for one in events if one.kind == "goal.stopped")


async def test_a_project_is_archived_by_name(server: Running) -> None:
    """Refused under work, which is named; its files are gone then, and come back with the next work."""
    client = server.client
    project = await client.projects.create(CreateProject(name="demo"))
    written = await client.projects.exec(project.id, Exec(argv=["sh", "-c", "echo kept >file"]))
    assert (await client.processes.wait(written.id)).exit_code == 0
    process = await client.projects.exec(project.id, Exec(argv=["sleep", "1000"]))
    with pytest.raises(ApiError) as refused:
        await client.lives.archive(project.id)
    assert (refused.value.status, refused.value.code) == (409, "project_busy")
    assert str(process.id) in refused.value.message
    archived = await client.lives.archive(project.id, force=True)
    assert (archived.goal, archived.phase, archived.leases) == ("archived", "archived", [])
    again = await client.lives.archive(project.id)
    stopped = await client.lives.stop(project.id)
    assert {again.goal, stopped.goal, again.phase, stopped.phase} == {"archived"}
    done = await client.projects.exec(project.id, Exec(argv=["cat", "file"]))
    assert (await client.processes.wait(done.id)).exit_code == 0
    awake = await client.lives.awake(project.id)
    assert (awake.goal, awake.phase) == ("running", "running")


async def test_files_that_come_back_are_told_in_percent(server: Running) -> None:
    """While a wake restores them the project's state says how much is here; before and after nothing."""
    project = await server.client.projects.create(CreateProject(name="demo"))
    kept = server.services.checkpoints
    assert kept is not None
    assert (await server.client.lives.awake(project.id)).files_percent is None
    with kept.activities.begun(ProjectId(str(project.id)), "wake") as activity:
        assert (await server.client.lives.awake(project.id)).files_percent == 0
        activity.progress(42, 100)
        assert (await server.client.lives.awake(project.id)).files_percent == 42
    with kept.activities.begun(ProjectId(str(project.id)), "verify") as activity:
        activity.progress(42, 100)
        assert (await server.client.lives.awake(project.id)).files_percent is None


async def test_a_project_is_started_by_name(server: Running) -> None:
    """A stop without a body is a plain one; a start wakes, and leaves no holder behind."""
    client = server.client
    project = await client.projects.create(CreateProject(name="demo"))

    async def is_free() -> bool:
        return not (await client.lives.awake(project.id)).leases

    await until(is_free)
    async with server.http as http:
        answer = await http.post(f"/api/projects/{project.id}/stop")
        assert answer.json()["data"]["phase"] == "stopped"
        bad = await http.post(f"/api/projects/{project.id}/stop", json={"force": "perhaps"})
        assert bad.status_code == 422
    started = await client.lives.start(project.id)
    assert (started.goal, started.phase, started.leases) == ("running", "running", [])


async def test_times_of_a_project_stay_unless_given(server: Running) -> None:
    """A time that is not given stays as it is, null is the server's again, 0 is never; ill ones are 422."""
    client = server.client
    project = await client.projects.create(CreateProject(name="demo"))
    assert project.stop_after is None
    changed = await client.projects.update(
        project.id, UpdateProject(stop_after=0, freeze_after=600, archive_after=86400)
    )
    assert (changed.freeze_after, changed.stop_after, changed.archive_after) == (600, 0, 86400)
    assert (await client.lives.awake(project.id)).next_step == "freeze"
    changed = await client.projects.update(project.id, UpdateProject(freeze_after=None))
    assert (changed.freeze_after, changed.stop_after) == (None, 0)
    async with server.http as http:
        path = f"/api/projects/{project.id}"
        assert (await http.put(path, json={"stop_after": -1})).status_code == 422


async def test_events_are_streamed_as_they_happen(server: Running) -> None:
    """A reader sees what was and what comes, in order; one that reconnects goes on after its last event."""
    project = await server.client.projects.create(CreateProject(name="demo"))
    path = f"/api/projects/{project.id}/events/stream"

    async def read(until_kind: str, headers: dict[str, str]) -> list[tuple[str, str]]:
        seen: list[tuple[str, str]] = []
        number = ""
        async with server.http as http, http.stream("GET", path, headers=headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for line in answer.aiter_lines():
                key, _, text = line.partition(": ")
                number = text if key == "id" else number
                if key == "event":
                    seen.append((number, text))
                    if text == "project.created":
                        await server.client.lives.hold(project.id, Hold(reason="x", minutes=1))
                    if text == until_kind:
                        break
        return seen

    async with asyncio.timeout(60):
        first = await read("hold.taken", {})
    kinds = [kind for _, kind in first]
    assert kinds.index("project.created") < kinds.index("hold.taken")
    await server.client.lives.save(project.id)
    async with asyncio.timeout(60):
        second = await read("checkpoint.saved", {"Last-Event-ID": first[-1][0]})
    assert not {number for number, _ in first} & {number for number, _ in second}
    async with server.http as http:
        bad = await http.get(path, headers={"Last-Event-ID": "x"})
    assert (bad.status_code, bad.json()["error_data"]["code"]) == (422, "bad_cursor")


async def test_a_sleeping_project_is_looked_at_and_not_woken(server: Running) -> None:
    """What was seen before its sleep is 200; what was not is 409 with its code and hint, and it stays asleep."""
    client = server.client
    project = await client.projects.create(CreateProject(name="demo"))
    await client.lives.stop(project.id)
    assert [one.name for one in await client.projects.branches(project.id)] == ["main"]
    assert await client.saved_work.list(project.id) == []
    assert (await client.lives.awake(project.id)).phase == "stopped"
    await client.lives.start(project.id)
    await server.services.containers.halt(ProjectId(str(project.id)))  # behind the server's back
    with pytest.raises(ApiError) as told:
        await client.projects.branches(project.id)
    assert (told.value.status, told.value.code) == (409, "project_asleep")
    assert "anyon project start" in told.value.hint
    assert not await server.services.containers.is_running(ProjectId(str(project.id)))


async def test_a_deleted_tasks_work_is_listed_and_brought_back(server: Running) -> None:
    """Unmerged work is not lost with its task: it is a hidden ref, and becomes a branch again."""
    client = server.client
    project = await client.projects.create(CreateProject(name="demo"))
    assert await client.saved_work.list(project.id) == []
    task = await client.tasks.create(
        CreateTask(project_id=project.id, title=None, description="echo precious > work.txt")
    )

    async def is_over() -> bool:
        return (await client.tasks.get(task.id)).status == "inreview"

    await until(is_over)
    [attempt] = await client.attempts.list(task.id)
    await client.tasks.delete(task.id)

    async def is_saved() -> bool:
        return bool(await client.saved_work.list(project.id))

    await until(is_saved)
    [saved] = await client.saved_work.list(project.id)
    assert str(saved.attempt_id) == str(attempt.id)
    await client.saved_work.restore(project.id, RestoreWork(ref=saved.ref, branch="rescued"))
    assert "rescued" in [one.name for one in await client.projects.branches(project.id)]
    done = await client.projects.exec(project.id, Exec(argv=["git", "show", "rescued:work.txt"]))
    assert (await client.processes.wait(done.id)).exit_code == 0
    for ref, branch, code in (
        (saved.ref, "rescued", "branch_exists"),
        ("refs/heads/main", "x", "bad_ref_name"),
        (saved.ref[:-4] + "9999", "x", "commit_unknown"),
    ):
        with pytest.raises(ApiError) as told:
            await client.saved_work.restore(project.id, RestoreWork(ref=ref, branch=branch))
        assert told.value.code == code
