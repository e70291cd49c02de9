"""The past of a project over HTTP: odd names, ranges, archives, diffs, forks, upkeep, what goes on."""

import asyncio
import io
import os
import tarfile
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import pytest
from tests.api.conftest import Running

from anyon.domain.ids import ProjectId
from anyon.sdk.errors import ApiError
from anyon.sdk.models import Project
from anyon.sdk.requests import CreateProject, Restore

KOREAN = "한글 파일.txt"
ODD = {
    KOREAN: KOREAN,
    os.fsdecode(b"\xff\xfe"): "%FF%FE",
    "line\nbreak": "line%0Abreak",
    "esc\x1b[2J": "esc%1B[2J",
    "100%": "100%25",
    "..%2f..": "..%252f..",
    "a?b#c&d=e+f": "a?b#c&d=e+f",
    "-rf": "-rf",
    '"quoted"': '"quoted"',
}


async def made(server: Running, **files: str) -> tuple[Project, str]:
    """Make a project with some files, save it, and return its checkpoint."""
    project = await server.client.projects.create(CreateProject(name="demo"))
    for name, text in files.items():
        (Path(project.git_repo_path) / name).write_text(text)
    return project, (await server.client.lives.save(project.id)).id


async def read(server: Running, project: UUID, checkpoint: str, path: str, start: int = 0) -> bytes:
    """Download a file by the client."""
    async with server.client.checkpoints.file(project, checkpoint, path, start=start) as found:
        return b"".join([piece async for piece in found.pieces])


async def test_odd_names_travel_both_ways(server: Running) -> None:
    """Korean, non-UTF-8 and hostile names are listed as harmless text, and that text leads to the file."""
    project, checkpoint = await made(server, **ODD)
    use = server.client.checkpoints
    listing = await use.browse(project.id, checkpoint, "workspace")
    names = {entry.name: entry.path for entry in listing.entries}
    assert names.keys() >= set(ODD.values())
    for shown in ODD.values():
        assert shown.isprintable()
        assert names[shown] == f"workspace/{shown}"
        assert await read(server, project.id, checkpoint, names[shown]) == shown.encode()
        entry = await use.entry(project.id, checkpoint, names[shown])
        assert (entry.kind, entry.size_bytes) == ("file", len(shown.encode()))
    (Path(project.git_repo_path) / os.fsdecode(b"\xff\xfe")).write_text("changed")
    second = (await server.client.lives.save(project.id)).id
    changes = await use.changes(project.id, second)
    assert [(one.path, one.change) for one in changes.changes] == [("workspace/%FF%FE", "changed")]
    text = await use.text_change(project.id, second, "workspace/%FF%FE", since=checkpoint)
    assert "+changed" in text.text
    await use.restore(project.id, checkpoint, Restore(path="workspace/%FF%FE"))
    assert (Path(project.git_repo_path) / os.fsdecode(b"\xff\xfe")).read_text() == "%FF%FE"


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "workspace/../../etc", "workspace//x", "workspace/%2e%2e", "a%00", "%zz", "x/"],
)
async def test_paths_that_lead_elsewhere_are_refused(server: Running, path: str) -> None:
    """Every route that takes a path answers 422 with its own code, and a restore changes nothing."""
    project, checkpoint = await made(server, one="1")
    base = f"/api/projects/{project.id}/checkpoints/{checkpoint}"
    async with server.http as http:
        for route in ("entry", "entries", "file", "archive", "changes/text"):
            answer = await http.get(f"{base}/{route}", params={"path": path})
            assert answer.status_code == 422, (route, answer.text)
            assert answer.json()["error_data"]["code"] == "bad_path"
        answer = await http.post(f"{base}/restore", json={"path": path})
        assert answer.json()["error_data"]["code"] == "bad_path"
        raw = await http.get(f"{base}/file?path=workspace/%FF")  # no text: not what a client sends
        assert raw.status_code in {404, 422}
    assert len(await server.client.lives.checkpoints(project.id)) == 1


async def test_a_download_goes_on_where_it_was(server: Running) -> None:
    """Ranges are answered as HTTP says; an other content begins at 0 again; it acts as no page."""
    text = "".join(f"{number:07}\n" for number in range(40_000))
    project, first = await made(server, big=text, page="<script>1</script>")
    (Path(project.git_repo_path) / "big").write_text(text[::-1])
    second = (await server.client.lives.save(project.id)).id
    base = f"/api/projects/{project.id}/checkpoints/{first}/file?path=workspace/"
    async with server.http as http:
        whole = await http.get(f"{base}big")
        assert (whole.status_code, whole.text) == (200, text)
        assert whole.headers["Accept-Ranges"] == "bytes"
        for header, wanted, told in (
            ("bytes=0-9", text[:10], "bytes 0-9/320000"),
            ("bytes=319990-", text[-10:], "bytes 319990-319999/320000"),
            ("bytes=-7", text[-7:], "bytes 319993-319999/320000"),
            ("bytes=319990-999999999", text[-10:], "bytes 319990-319999/320000"),
        ):
            part = await http.get(f"{base}big", headers={"Range": header})
            assert (part.status_code, part.text) == (206, wanted), header
            assert part.headers["Content-Range"] == told
        for header in ("bytes=5-2", "bytes=", "items=1-2", "bytes=0-1,3-4", "bytes=-"):
            assert (await http.get(f"{base}big", headers={"Range": header})).status_code == 200
        beyond = await http.get(f"{base}big", headers={"Range": "bytes=320000-"})
        assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, "bytes */320000")
        page = await http.get(f"{base}page")
        assert page.headers["Content-Type"] == "application/octet-stream"
        assert page.headers["Content-Disposition"].startswith("attachment")
        assert "sandbox" in page.headers["Content-Security-Policy"]
        named = await http.get(f"{base}{quote('big')}")
        assert named.headers["Content-Disposition"] == "attachment; filename*=UTF-8''big"
    use = server.client.checkpoints
    async with use.file(project.id, first, "workspace/big") as found:
        mark = found.mark
    async with use.file(project.id, first, "workspace/big", start=100, mark=mark) as found:
        assert found.start == 100
    async with use.file(project.id, second, "workspace/big", start=100, mark=mark) as found:
        assert found.start == 0


async def test_a_directory_comes_as_an_archive(server: Running) -> None:
    """All trees or one directory are a tar stream with the names as they are."""
    project, checkpoint = await made(server, **{KOREAN: "k", os.fsdecode(b"\xff"): "f"})
    async with server.client.checkpoints.archive(project.id, checkpoint) as found:
        data = b"".join([piece async for piece in found.pieces])
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        names = archive.getnames()
    assert f"workspace/{KOREAN}" in names
    assert "workspace/\udcff" in names
    assert "home" in names


async def test_what_is_no_file_or_directory_is_told(server: Running) -> None:
    """A directory is no file, a file no directory, and what is not there is 404 with its code."""
    project, checkpoint = await made(server, one="1")
    use = server.client.checkpoints
    for call, status, code in (
        (use.browse(project.id, checkpoint, "workspace/one"), 409, "not_a_directory"),
        (read(server, project.id, checkpoint, "workspace"), 409, "not_a_file"),
        (read(server, project.id, checkpoint, "workspace/no"), 404, "path_not_found"),
        (read(server, project.id, checkpoint, "nowhere/no"), 404, "tree_not_found"),
        (use.get(project.id, "nothing"), 404, "checkpoint_not_found"),
        (use.changes(project.id, checkpoint), 404, "checkpoint_not_found"),
        (use.fork(project.id, checkpoint, "demo"), 409, "name_taken"),
    ):
        with pytest.raises(ApiError) as refused:
            await call
        assert (refused.value.status, refused.value.code) == (status, code)


async def test_a_fork_over_http(server: Running) -> None:
    """A fork is a project in the list; its checkpoint borrows the packs of its source."""
    project, checkpoint = await made(server, one="1")
    fork = await server.client.checkpoints.fork(project.id, checkpoint, "experiment")
    assert (fork.name, fork.phase) == ("experiment", "archived")
    [first] = await server.client.lives.checkpoints(fork.id)
    detail = await server.client.checkpoints.get(fork.id, first.id)
    assert (detail.reason, detail.parent) == ("fork", None)
    assert detail.borrowed_packs == detail.packs - 1 > 0
    usage = {one.project: one for one in await server.client.storage.usage()}
    assert usage["demo"].lent_bytes == usage["demo"].stored_bytes > 0
    assert usage["experiment"].borrowed_bytes == usage["demo"].stored_bytes
    assert usage["experiment"].stored_bytes < usage["demo"].stored_bytes


async def test_upkeep_over_http(server: Running) -> None:
    """Verify, collect and drill answer with what they saw and did; the proof's date is shown."""
    project, _ = await made(server, one="1")
    storage = server.client.storage
    before = await storage.of(project.id)
    assert (before.checkpoints, before.proven_at, before.collected_at) == (1, None, None)
    seen = await storage.verify(project.id, read_data=True)
    assert (seen.checkpoints, seen.problems, seen.damaged) == (1, [], [])
    assert (await storage.collect(project.id)).checkpoints == 0
    drilled = await storage.drill(project.id)
    assert (drilled.proven, drilled.problems, drilled.skipped) == (True, [], "")
    after = await storage.of(project.id)
    assert after.proven_at is not None
    assert after.collected_at is not None
    events = {event.kind for event in await server.client.lives.events(project.id)}
    assert {"restore.proven", "store.collected"} <= events


async def test_what_goes_on_is_told(server: Running) -> None:
    """Whoever watches sees a restore begin, and the end of all; with nothing going on it ends at once."""
    project, checkpoint = await made(server, one="1" * 100_000)
    use = server.client.checkpoints
    assert [one async for one in use.activities(project.id, wait=0)] == []
    found = server.services.checkpoints
    assert found is not None
    seen, has_seen = [], asyncio.Event()

    async def watch() -> None:
        async for activities in use.activities(project.id, wait=5):
            seen.extend(activities)
            has_seen.set()

    watching = asyncio.create_task(watch())
    with found.activities.begun(ProjectId(str(project.id)), "restore") as activity:
        activity.progress(3, 10)
        async with asyncio.timeout(60):
            await has_seen.wait()
    async with asyncio.timeout(60):
        await watching
    assert (seen[0].what, seen[0].done_bytes, seen[0].total_bytes) == ("restore", 3, 10)
    await use.restore(project.id, checkpoint, Restore())
