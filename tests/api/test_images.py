"""Images and tags over HTTP: hostile uploads, what a browser may do with a file, two users."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest
from tests.api.conftest import Running
from tests.api.test_safety import STRANGER, guarded, token

from anyon.api import uploads
from anyon.domain import pictures as rules
from anyon.domain.ids import LOCAL_USER
from anyon.sdk.clients import Client
from anyon.sdk.errors import ApiError
from anyon.sdk.requests import CreateProject, CreateTag, CreateTask, UpdateTag, UpdateTask

__all__ = ["guarded"]  # a fixture

PNG = b"\x89PNG\r\n\x1a\n"
EVIL_SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
UPLOAD = "/api/images/upload"


async def test_from_upload_to_task(server: Running) -> None:
    """Uploaded with a name, attached by its id, listed in order, read, and replaced by an update."""
    client = server.client
    project = await client.projects.create(CreateProject(name="p"))
    first = await client.images.upload("화면 1.png", PNG)
    assert (first.original_name, first.mime_type, first.size_bytes) == (
        "화면 1.png",
        "image/png",
        8,
    )
    assert first.file_path == f".vibe-images/{first.id}_화면_1.png"
    new = CreateTask(project_id=project.id, title="t", image_ids=[first.id])
    task = await client.tasks.create(new)
    second = await client.images.upload("b.svg", EVIL_SVG, task=task.id)
    assert await client.images.of_task(task.id) == [first, second]
    assert await client.images.content(first.id) == PNG
    await client.tasks.update(task.id, UpdateTask(status="done"))
    await client.tasks.update(task.id, UpdateTask(image_ids=[second.id]))
    assert await client.images.of_task(task.id) == [second]
    await client.images.delete(second.id)
    assert await client.images.of_task(task.id) == []
    with pytest.raises(ApiError) as caught:
        await client.images.content(second.id)
    assert (caught.value.status, caught.value.message) == (404, "Image not found.")
    await client.tasks.update(task.id, UpdateTask(image_ids=[first.id]))
    await client.tasks.update(task.id, UpdateTask(image_ids=[]))
    assert await client.images.of_task(task.id) == []


@pytest.mark.parametrize(
    ("name", "content", "status", "code"),
    [
        ("x.exe", PNG, 400, "image_type_unknown"),
        ("x", PNG, 400, "image_type_unknown"),
        ("x.png", b"", 400, "image_unreadable"),
        ("x.png", b"GIF89a", 400, "image_unreadable"),
        ("x.svg", b"<html/>", 400, "image_unreadable"),
        ("x.png", PNG + bytes(rules.MOST_BYTES + 1 - len(PNG)), 413, "image_too_large"),
        ("../../x.png", PNG, 200, None),
        ("a\0b.png", PNG, 200, None),
    ],
)
async def test_hostile_uploads(
    server: Running, name: str, content: bytes, status: int, code: str | None
) -> None:
    """What is no image, too large or badly named is refused as the rules say; a path in a name is cut off."""
    async with server.http as http:
        answer = await http.post(UPLOAD, files={"image": (name, content)})
        body = answer.json()
        assert answer.status_code == status, body
        assert (body["error_data"] or {}).get("code") == code
        assert set(body) == {"success", "data", "error_data", "message"}
        if status == 200:
            assert not set(body["data"]["original_name"]) & set("/\\\0")
            assert body["data"]["file_path"].count("/") == 1
        if status == 413:
            message = "This image is too large (20.0 MB). Maximum file size is 20.0 MB."
            assert body["message"] == message


async def test_exactly_as_much_as_may(server: Running) -> None:
    """20 MiB are taken whole."""
    content = PNG + bytes(rules.MOST_BYTES - len(PNG))
    image = await server.client.images.upload("x.png", content)
    assert await server.client.images.content(image.id) == content


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"x"),
        ("multipart/form-data; boundary=b", b"--b--\r\n"),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--b--\r\n',
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="other"; filename="x.png"\r\n\r\nx\r\n--b--\r\n',
        ),
    ],
)
async def test_other_bodies(server: Running, kind: str, body: bytes) -> None:
    """A body that is no form, a broken one, and one without the file are refused in the envelope."""
    async with server.http as http:
        answer = await http.post(UPLOAD, content=body, headers={"Content-Type": kind})
        assert answer.status_code == 400, answer.text
        assert answer.json()["error_data"]["code"] == "image_unreadable"


async def _endless(server: Running) -> tuple[int, int]:
    """Send a file of 64 MiB piece by piece, without saying how long it is; return status and what was sent."""
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\n\r\n'
        for _ in range(1024):
            sent += 64 * 1024
            yield bytes(64 * 1024)
            await asyncio.sleep(0)
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with server.http as http:
        try:
            answer = await http.post(UPLOAD, content=pieces(), headers=headers)
        except httpx.TransportError:
            return 0, sent  # it was cut off before the answer could be read
    return answer.status_code, sent


async def test_a_body_is_bounded_while_it_comes(server: Running) -> None:
    """A body that does not say its length is refused as soon as it is too long, not after its end."""
    status, sent = await _endless(server)
    assert status in {413, 0}
    assert sent < 48 * 1024 * 1024  # the bound, and what lies in sockets


async def test_without_the_bound_all_would_be_read(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: where only the whole is measured, all of it has come by then."""
    monkeypatch.setattr(uploads, "FORM_BYTES", 1 << 40)
    status, sent = await _endless(server)
    assert (status, sent) == (413, 64 * 1024 * 1024)


async def test_a_file_is_no_page_of_ours(server: Running) -> None:
    """Types are fixed, caches between keep nothing, and an SVG's script has nobody's rights."""
    png = await server.client.images.upload("x.png", PNG)
    svg = await server.client.images.upload("x.svg", EVIL_SVG)
    async with server.http as http:
        plain = await http.get(f"/api/images/{png.id}/file")
        assert plain.headers["content-type"] == "image/png"
        assert plain.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert plain.headers["x-content-type-options"] == "nosniff"
        drawn = await http.get(f"/api/images/{svg.id}/file")
        assert drawn.headers["content-type"] == "image/svg+xml"
        policy = drawn.headers["content-security-policy"].split("; ")
        assert policy[:2] == ["sandbox", "default-src 'none'"]
        assert "allow-scripts" not in drawn.headers["content-security-policy"]


async def test_nobody_unknown_is_read_from(guarded: Running) -> None:
    """Without a token, and for a task that is not the caller's, an upload is refused before its body is read."""
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with guarded.http as http:
        answer = await http.post(UPLOAD, content=b"x", headers=headers)
        assert answer.status_code == 401
        headers["Authorization"] = f"Bearer {await token(guarded, STRANGER)}"
        answer = await http.post(
            f"/api/images/task/{uuid4()}/upload", content=b"x", headers=headers
        )
        assert (answer.status_code, answer.json()["error_data"]["code"]) == (404, "task_unknown")


async def test_two_users(guarded: Running) -> None:
    """The same content is each user's own; neither sees, attaches, drafts or deletes the other's."""
    async with (
        Client(guarded.base_url, await token(guarded, LOCAL_USER)) as one,
        Client(guarded.base_url, await token(guarded, STRANGER)) as two,
    ):
        mine, theirs = await one.images.upload("x.png", PNG), await two.images.upload("y.png", PNG)
        assert mine.id != theirs.id
        project = await one.projects.create(CreateProject(name="p"))
        new = CreateTask(project_id=project.id, title="t", image_ids=[theirs.id])
        task = await one.tasks.create(CreateTask(project_id=project.id, title="t"))
        for refused in (
            one.images.content(theirs.id),
            one.images.delete(theirs.id),
            one.tasks.create(new),
            one.tasks.update(task.id, UpdateTask(image_ids=[mine.id, theirs.id])),
            two.images.of_task(task.id),
            two.images.upload("z.png", PNG, task=task.id),
        ):
            with pytest.raises(ApiError) as caught:
                await refused
            assert caught.value.status == 404
        assert await two.images.content(theirs.id) == PNG
        assert await one.images.of_task(task.id) == []
        await one.tags.create(CreateTag(tag_name="a", content="b"))
        assert await two.tags.list() == []


async def test_drafts_keep_only_own_images(guarded: Running) -> None:
    """A draft holds the ids of the caller's images; another's is unknown and changes nothing."""
    headers = {"Authorization": f"Bearer {await token(guarded, LOCAL_USER)}"}
    async with (
        Client(guarded.base_url, await token(guarded, LOCAL_USER)) as one,
        Client(guarded.base_url, await token(guarded, STRANGER)) as two,
        guarded.http as http,
    ):
        project = await one.projects.create(CreateProject(name="p"))
        task = await one.tasks.create(CreateTask(project_id=project.id, description="true"))
        [attempt] = await one.attempts.list(task.id)
        mine, theirs = await one.images.upload("x.png", PNG), await two.images.upload("y.png", PNG)
        path = f"/api/task-attempts/{attempt.id}/draft"
        for image, status in ((mine, 200), (theirs, 404)):
            asked = {"prompt": str(image.id), "image_ids": [str(image.id)]}
            assert (await http.put(path, json=asked, headers=headers)).status_code == status
        draft = (await http.get(path, headers=headers)).json()["data"]
        assert (draft["prompt"], draft["image_ids"]) == (str(mine.id), [str(mine.id)])


async def test_tags(server: Running) -> None:
    """Tags are made, listed by name, searched, changed and deleted in the wire's shapes."""
    client = server.client
    made = await client.tags.create(CreateTag(tag_name="버그", content="steps"))
    await client.tags.create(CreateTag(tag_name="Review", content="look"))
    assert [one.tag_name for one in await client.tags.list()] == ["Review", "버그"]
    assert [one.tag_name for one in await client.tags.list("rEV")] == ["Review"]
    changed = await client.tags.update(made.id, UpdateTag(content="more"))
    assert (changed.tag_name, changed.content) == ("버그", "more")
    await client.tags.delete(made.id)
    with pytest.raises(ApiError) as caught:
        await client.tags.delete(made.id)
    assert (caught.value.status, caught.value.code) == (404, "tag_unknown")
    with pytest.raises(ApiError) as refused:
        await client.tags.create(CreateTag(tag_name=" ", content=""))
    assert (refused.value.status, refused.value.code) == (422, "name_empty")
