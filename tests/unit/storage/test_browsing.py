"""Looking into checkpoints: listings, parts of files, archives, differences, damage by name."""

import io
import os
import random
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from anyon.clock import SystemClock
from anyon.domain.errors import AnyonError, ConflictError, NotFoundError
from anyon.storage import texts
from anyon.storage.browsing import Browser, Download, RangeError
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.testing.trees import describe, make_hostile

PROJECT = "user/project"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def checkpoints(store: MemoryStore, tmp_path: Path) -> AsyncIterator[Checkpoints]:
    made = Checkpoints(store, cache=tmp_path / "cache", clock=SystemClock())
    yield made
    await made.close()


async def read(download: Download) -> bytes:
    """Return all of a download."""
    return b"".join([piece async for piece in download.pieces])


async def test_any_part_of_a_file(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Every range gives what a slice gives, of large files and of those with holes."""
    tree = tmp_path / "tree"
    tree.mkdir()
    big = random.Random(1).randbytes((3 << 20) + 17)
    (tree / "big").write_bytes(big)
    with (tree / "holes").open("wb") as file:
        file.truncate(6 << 20)
        file.seek(2 << 20)
        file.write(b"middle")
        file.seek((5 << 20) + 9)
        file.write(b"late")
    holes = (tree / "holes").read_bytes()
    (tree / "empty").touch()
    saved = await checkpoints.save(PROJECT, {"workspace": tree})
    browser = Browser(checkpoints)
    source = random.Random(2)
    for name, content in ((b"big", big), (b"holes", holes)):
        size = len(content)
        ranges = [(0, None), (size - 1, None), (1 << 20, 2 << 20), (5, 6), (None, 7), (None, None)]
        ranges += [
            (start, start + source.randrange(1, 1 << 21))
            for start in (source.randrange(size) for _ in range(12))
        ]
        for start, end in ranges:
            found = await browser.file(
                PROJECT, saved.checkpoint.id, b"workspace/" + name, start=start, end=end
            )
            wanted = content[start:end] if start is not None else content[-(end or size) :]
            assert await read(found) == wanted, (name, start, end)
            assert found.end - found.start == len(wanted)
    empty = await browser.file(PROJECT, saved.checkpoint.id, b"workspace/empty")
    assert await read(empty) == b""
    with pytest.raises(RangeError) as beyond:
        await browser.file(PROJECT, saved.checkpoint.id, b"workspace/big", start=len(big))
    assert beyond.value.size_bytes == len(big)


async def test_only_what_is_needed_is_read(
    checkpoints: Checkpoints, store: MemoryStore, tmp_path: Path
) -> None:
    """The end of a large file is read without its beginning."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/big").write_bytes(os.urandom(8 << 20))
    saved = await checkpoints.save(PROJECT, {"workspace": tmp_path / "tree"})
    asked: list[int] = []
    real = store.get

    def get(key: str, *, start: int = 0, length: int | None = None) -> object:
        found = real(key, start=start, length=length)
        asked.append(len(found.data))
        return found

    store.get = get  # type: ignore[method-assign] # counts what is read
    browser = Browser(checkpoints)
    tail = await browser.file(PROJECT, saved.checkpoint.id, b"workspace/big", start=None, end=10)
    assert len(await read(tail)) == 10
    assert sum(asked) < 3 << 20


async def test_an_archive_holds_what_a_restore_brings_back(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    """A hostile tree, unpacked from the tar stream, is as it was: names, links, modes, times, owners."""
    make_hostile(tmp_path / "tree")
    saved = await checkpoints.save(PROJECT, {"workspace": tmp_path / "tree"})
    download = await Browser(checkpoints).archive(PROJECT, saved.checkpoint.id, b"workspace")
    assert download.name == b"workspace.tar"
    data = await read(download)
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        assert len(archive.getmembers()) == len(describe(tmp_path / "tree"))
    (tmp_path / "out").mkdir()
    unpack = ["tar", "--extract", "--preserve-permissions", "--xattrs", "--directory"]
    done = subprocess.run([*unpack, tmp_path / "out"], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert describe(tmp_path / "out/workspace") == describe(tmp_path / "tree")


async def test_listings_come_in_parts(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """The trees, a directory's entries by name, a part of them; and what is no directory is told."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(7):
        (tree / f"f{number}").write_bytes(b"x" * number)
    (tree / os.fsdecode(b"\xffname")).touch()
    saved = await checkpoints.save(PROJECT, {"workspace": tree, "home": tree})
    browser, checkpoint = Browser(checkpoints), saved.checkpoint.id
    tops = await browser.listing(PROJECT, checkpoint, b"", offset=0, limit=10)
    assert [entry.name for entry in tops.entries] == [b"home", b"workspace"]
    part = await browser.listing(PROJECT, checkpoint, b"workspace", offset=5, limit=3)
    assert ([entry.name for entry in part.entries], part.total) == ([b"f5", b"f6", b"\xffname"], 8)
    assert (await browser.entry(PROJECT, checkpoint, b"workspace/\xffname")).kind == "file"
    for call, error in (
        (browser.listing(PROJECT, checkpoint, b"workspace/f1", offset=0, limit=1), ConflictError),
        (browser.file(PROJECT, checkpoint, b"workspace"), ConflictError),
        (browser.entry(PROJECT, checkpoint, b"workspace/no"), NotFoundError),
        (browser.entry(PROJECT, "none", b"workspace"), NotFoundError),
        (browser.entry("user/other", checkpoint, b"workspace"), NotFoundError),
    ):
        with pytest.raises(error):
            await call


async def test_what_changed(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Added, changed and removed paths in parts; a file's difference as text, binary or too large."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "same").write_text("s")
    (tree / "text").write_text("one\ntwo\nthree\n")
    (tree / "gone").write_text("g")
    (tree / "binary").write_bytes(b"\0a")
    one = (await checkpoints.save(PROJECT, {"workspace": tree})).checkpoint.id
    (tree / "text").write_text("one\n2\nthree\n")
    (tree / "gone").unlink()
    (tree / "new").write_text("n")
    (tree / "binary").write_bytes(b"\0b")
    two = (await checkpoints.save(PROJECT, {"workspace": tree})).checkpoint.id
    browser = Browser(checkpoints)
    found = await browser.changes(PROJECT, one, two, offset=0, limit=10)
    rows = {row.path: (row.before is None, row.after is None) for row in found.rows}
    assert rows == {
        b"workspace/binary": (False, False),
        b"workspace/gone": (False, True),
        b"workspace/new": (True, False),
        b"workspace/text": (False, False),
    }
    part = await browser.changes(PROJECT, one, two, offset=1, limit=2)
    assert ([row.path for row in part.rows], part.has_more) == (
        [b"workspace/gone", b"workspace/new"],
        True,
    )
    text = await browser.text_difference(PROJECT, one, two, b"workspace/text")
    assert text.text.splitlines()[2:] == ["@@ -1,3 +1,3 @@", " one", "-two", "+2", " three"]
    added = await browser.text_difference(PROJECT, one, two, b"workspace/new")
    assert added.text.splitlines()[-2:] == ["+n", "\\ No newline at end of file"]
    assert (await browser.text_difference(PROJECT, one, two, b"workspace/binary")).is_binary
    assert (await browser.text_difference(PROJECT, one, two, b"workspace/same")).text == ""
    with pytest.raises(NotFoundError):
        await browser.text_difference(PROJECT, one, two, b"workspace/never")


def test_texts_that_are_quite_different_are_told_at_once() -> None:
    """Ten thousand other lines are no work for a matcher: they go and come as a whole, and apply."""
    lines = [f"line {number}\n" for number in range(20_000)]
    before = "".join(["top\n", *lines[:10_000], "end"]).encode()
    after = "".join(["top\n", *lines[10_000:], "end"]).encode()
    found = texts.difference(before, after, "f").text.splitlines()
    assert found[2] == "@@ -1,10002 +1,10002 @@"
    assert sum(row.startswith("-") for row in found[3:]) == 10_000
    assert sum(row.startswith("+") for row in found[3:]) == 10_000
    assert texts.difference(b"x" * ((1 << 20) + 1), b"", "f").is_too_large


async def test_damage_is_named_and_the_newest_intact_version_offered(
    checkpoints: Checkpoints, store: MemoryStore, tmp_path: Path
) -> None:
    """A verification names the files that a damaged pack takes, and where each is whole still."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "kept").write_bytes(os.urandom(5000))
    (tree / "hit").write_bytes(os.urandom(5000))
    one = (await checkpoints.save(PROJECT, {"workspace": tree})).checkpoint
    (tree / "hit").write_bytes(os.urandom(5001))
    two = (await checkpoints.save(PROJECT, {"workspace": tree})).checkpoint
    (tree / "fresh").write_bytes(os.urandom(5002))
    (tree / "hit").write_bytes(os.urandom(5003))
    three = (await checkpoints.save(PROJECT, {"workspace": tree})).checkpoint
    (newest,) = three.packs.keys() - two.packs.keys() - one.packs.keys()
    key = f"{PROJECT}/packs/{newest[:2]}/{newest}"
    data = bytearray(store.get(key).data)
    data[60] ^= 1
    store.put(key, bytes(data))
    assert (await checkpoints.verify(PROJECT)).is_whole  # the structure is as it was
    seen = await checkpoints.verify(PROJECT, read_data=True)
    assert not seen.is_whole
    found = {one.path: one.intact_id for one in seen.damaged}
    assert found == {b"workspace/fresh": None, b"workspace/hit": two.id}
    whole = await checkpoints.whole_before(PROJECT, three.id)
    assert whole is not None
    assert whole.id == two.id
    store.delete(key)
    gone = await checkpoints.verify(PROJECT)
    assert [one.path for one in gone.damaged] == [b"workspace"]
    assert gone.damaged[0].intact_id == two.id


async def test_one_entry_comes_back(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """A file, a link or a directory is restored alone, as it was."""
    make_hostile(tmp_path / "tree")
    saved = await checkpoints.save(PROJECT, {"workspace": tmp_path / "tree"})
    whole = describe(tmp_path / "tree")
    for number, name in enumerate([b"line\nbreak", b"\xff\xfe", b"outside", b"empty", b"sparse"]):
        target = tmp_path / f"out{number}"
        await checkpoints.restore_entry(PROJECT, saved.checkpoint.id, b"workspace/" + name, target)
        assert os.listdir(bytes(target)) == [name]  # noqa: PTH208 - names are bytes
        back = describe(target)
        assert back[b"/" + name][:6] == whole[b"/" + name][:6]
    with pytest.raises(AnyonError):
        await checkpoints.restore_entry(
            PROJECT, saved.checkpoint.id, b"workspace/no", tmp_path / "no"
        )
    assert not (tmp_path / "no").exists()
