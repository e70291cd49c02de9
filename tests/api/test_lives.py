"""A project's life over HTTP: who holds it awake, what happened, its checkpoints."""

from datetime import timedelta

import pytest
from tests.api.conftest import Running

from anyon.sdk.errors import ApiError
from anyon.sdk.requests import CreateProject, Exec, Hold, UpdateProject
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
    assert reasons[0] == "before_restore"
    assert "asked" in reasons
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
