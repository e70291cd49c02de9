"""Where a glance shows that nothing changed nothing is visited, and nothing is lost by that."""

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.storage.settling import settle

from anyon.clock import SystemClock
from anyon.storage import contents, glances
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.exclusions import parse
from anyon.storage.glances import Glance, Seen
from anyon.storage.saves import Progress, Saved
from anyon.storage.uploads import Stop
from anyon.storage.visits import Visited
from anyon.testing.trees import describe

PROJECT = "user/project"
WORDS = ("append", "touch", "mode", "folder", "remove", "add", "grow", "rename", "link", "empty")
EDITS = st.lists(
    st.tuples(st.sampled_from(WORDS), st.integers(0, 99), st.integers(0, 99)), max_size=5
)


class Blind(Glance):
    """A glance that has never seen a change."""

    def is_touched(self, place: bytes) -> bool:
        """See nothing."""
        return not self.has_before


class Trusting(Glance):
    """A glance that trusts what the scan itself did not trust."""

    def seen(self, distrusted: Collection[bytes]) -> Seen | None:
        """Keep everything."""
        return super().seen(())


def grown(root: Path) -> Path:
    """Make a small tree, of which some looks like a git repository."""
    for number in range(5):
        folder = root / f"d{number}" / "inner [x]" / "deep\n"
        folder.mkdir(parents=True)
        (folder / "one").write_bytes(b"%d" % number * 20)
        (folder.parent / "two").write_bytes(b"two")
        (root / f"d{number}" / "way").symlink_to("inner [x]")
    for name in ("objects/ab", "objects/pack", "refs/heads", "hooks"):
        (root / "d0/.git" / name).mkdir(parents=True)
        (root / "d0/.git" / name / "file").write_bytes(name.encode())
    (root / "d0/.git/HEAD").write_text("ref: refs/heads/file")
    os.link(root / "d1/inner [x]/two", root / "d2/linked")
    return root


def edit(root: Path, kind: str, one: int, two: int) -> None:
    """Do one thing to the tree, of whatever is there."""
    folders = sorted(p for p in root.rglob("*") if p.is_dir() and not p.is_symlink())
    files = sorted(p for p in root.rglob("*") if p.is_file() and not p.is_symlink())
    if not folders or not files:
        return
    folder, file = folders[one % len(folders)], files[two % len(files)]
    match kind:
        case "append":
            file.write_bytes(file.read_bytes() + b"more")
        case "touch":
            os.utime(file, ns=(two, two))
        case "mode":
            file.chmod(0o600 | two % 64)
        case "folder":
            folder.chmod(0o700 | two % 64)
        case "remove":
            file.unlink()
        case "add":
            (folder / f"new-{two}").write_bytes(b"new")
        case "grow":
            (folder / f"wide-{two}" / "er").mkdir(parents=True, exist_ok=True)
            (folder / f"wide-{two}" / "er" / "file").write_bytes(b"%d" % one)
        case "rename" if not file.is_relative_to(folder):
            folder.rename(root / f"moved-{two}-{one}")
        case "link":
            os.link(file, folder / f"link-{two}")
        case "empty":
            shutil.rmtree(folder)


async def saved(
    base: Path,
    root: Path,
    store: MemoryStore,
    *,
    glance: Callable[..., Glance] | None = Glance,
    name: str = "cache",
    **more: Any,
) -> Saved:
    """Save *root* with what is known in the cache *name*."""
    made = Checkpoints(store, cache=base / name, clock=SystemClock(), glance=glance, **more)
    try:
        return await made.save(PROJECT, {"workspace": root})
    finally:
        await made.close()


async def check(base: Path, root: Path, made: Saved) -> None:
    """Compare with what a save finds that knows nothing and visits everything."""
    full = await saved(base, root, MemoryStore(), glance=None, name=f"fresh-{time.time_ns()}")
    one, other = made.checkpoint, full.checkpoint
    assert one.roots == other.roots
    counts = (one.files, one.size_bytes, one.unreadable)
    assert counts == (other.files, other.size_bytes, other.unreadable)


@pytest.mark.parametrize("is_shared", [False, True], ids=["one", "shared"])
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rounds=st.lists(EDITS, min_size=1, max_size=2))
def test_a_glance_finds_what_a_scan_finds(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    rounds: list[Sequence[tuple[str, int, int]]],
    is_shared: bool,
) -> None:
    """Whatever is done between two saves, tree and sums are those of visiting everything."""
    if is_shared:
        monkeypatch.setattr(glances, "_SHARED_RECORDS", 0)
        monkeypatch.setattr(glances, "_workers", lambda: 2)
    base = tmp_path_factory.mktemp("glance")
    root = grown(base / "tree")

    async def run() -> None:
        store = MemoryStore()
        await saved(base, root, store)
        for edits in rounds:
            settle(root)
            await saved(base, root, store)
            for one in edits:
                try:
                    edit(root, *one)
                except (FileExistsError, NotADirectoryError, FileNotFoundError):
                    continue
            await check(base, root, await saved(base, root, store))

    asyncio.run(run())


async def test_a_blind_glance_is_caught(tmp_path: Path) -> None:
    """Control: the comparison above fails for a glance that does not see an edit."""
    root, store = grown(tmp_path / "tree"), MemoryStore()
    settle(root)
    await saved(tmp_path, root, store)
    edit(root, "append", 1, 30)
    made = await saved(tmp_path, root, store, glance=Blind)
    with pytest.raises(AssertionError):
        await check(tmp_path, root, made)


@pytest.mark.parametrize("glance", [Glance, Trusting], ids=["as it is", "control"])
async def test_what_could_not_be_captured_is_visited_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, glance: Callable[..., Glance]
) -> None:
    """A file that changed while it was read is read again by the next save, though it looks as it did."""
    root, store = grown(tmp_path / "tree"), MemoryStore()
    settle(root)
    real = contents.capture

    def torn(directory: int, name: bytes, *words: Any) -> contents.Captured:
        found = real(directory, name, *words)
        if name != b"two":
            return found
        return replace(found, text=found.text.replace('"size":3', '"size":2'), is_stable=False)

    with monkeypatch.context() as patched:
        patched.setattr(contents, "capture", torn)
        await saved(tmp_path, root, store, glance=glance)
    made = await saved(tmp_path, root, store, glance=glance)
    if glance is Trusting:
        with pytest.raises(AssertionError):
            await check(tmp_path, root, made)
    else:
        await check(tmp_path, root, made)


async def test_an_unchanged_tree_is_not_visited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a tree as it was no directory is listed, and after one edit few are."""
    root, store = grown(tmp_path / "tree"), MemoryStore()
    settle(root)
    await saved(tmp_path, root, store)
    visited: list[str] = []
    real = Visited.leaves_out
    monkeypatch.setattr(
        Visited, "leaves_out", lambda self, name: visited.append(name) or real(self, name)
    )
    listed: list[object] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda fd: listed.append(fd) or scandir(fd))
    assert not (await saved(tmp_path, root, store)).is_new
    assert (visited, listed) == ([], [])
    (root / "d3/new").write_text("new")
    assert (await saved(tmp_path, root, store)).is_new
    assert len(listed) == 2, "the top and d3"


async def test_a_ref_and_its_object_are_seen_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a ref changed, the repository's objects are visited after it, whatever the glance saw."""
    root, store = grown(tmp_path / "tree"), MemoryStore()
    settle(root)
    await saved(tmp_path, root, store)
    (root / "d0/.git/refs/heads/file").write_text("another")
    real = Glance.look

    def late(self: Glance, stop: Stop) -> bool:
        done = real(self, stop)
        # What git writes between the glance and the visit of the ref.
        (root / "d0/.git/objects/ab/object").write_text("object")
        (root / "d0/.git/refs/heads/file").write_text("object")
        return done

    monkeypatch.setattr(Glance, "look", late)
    await check(tmp_path, root, await saved(tmp_path, root, store))


async def test_other_exclusions_make_it_look_anew(tmp_path: Path) -> None:
    """What was seen under other rules says nothing: a name that is not left out any more is captured."""
    root, store = grown(tmp_path / "tree"), MemoryStore()
    settle(root)
    without = ("workspace/d1/inner [x]", "workspace/d2/*", "workspace/d3/li[nk")
    await saved(tmp_path, root, store, exclusions=without)
    again = await saved(tmp_path, root, store, exclusions=without)
    assert not again.is_new
    made = await saved(tmp_path, root, store)
    assert made.checkpoint.files > again.checkpoint.files
    await check(tmp_path, root, made)


def test_find_is_told_what_is_left_out(tmp_path: Path) -> None:
    """A directory that is left out is not gone through, whatever special characters its name has."""
    root = grown(tmp_path / "tree")
    rules = parse(["w/d1/inner [x]", "w/d2/*", "w/d3/[d]*"])["w"]
    glance = Glance(bytes(root), rules, None)
    assert glance.look(Stop())
    seen = glance.seen(())
    assert seen is not None
    places = [record.split(b" ", 8)[8] for record in seen.body.split(b"\0")[:-1]]
    assert b"./d1/way" in places
    assert not any(place.startswith((b"./d1/inner", b"./d2/")) for place in places)
    assert b"./d3/inner [x]/deep\n/one" in places, "what only Python can tell is looked at"


@pytest.mark.parametrize(
    "program",
    ["exit 2", "exit 1", "echo no >&2; exit 1", "printf 'f1 2 3'", "kill -9 $$", None],
    ids=["fails", "says nothing", "complains", "is cut", "is killed", "is not there"],
)
async def test_without_find_everything_is_visited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None
) -> None:
    """A program that fails, is another's, or is not there costs time, never a change."""
    root, store = grown(tmp_path / "tree"), MemoryStore()
    settle(root)
    await saved(tmp_path, root, store)
    edit(root, "append", 1, 30)
    script = tmp_path / "find"
    if program is not None:
        script.write_text(f"#!/bin/sh\n{program}\n")
        script.chmod(0o755)
    monkeypatch.setattr(glances, "_find", lambda: str(script) if program is not None else None)
    await check(tmp_path, root, await saved(tmp_path, root, store))


async def test_too_much_to_look_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree with more to tell than is kept in memory is visited, and comes back."""
    monkeypatch.setattr(glances, "_MAX_BYTES", 500)
    root, store = grown(tmp_path / "tree"), MemoryStore()
    made = await saved(tmp_path, root, store)
    await check(tmp_path, root, made)
    reader = Checkpoints(store, cache=tmp_path / "reader", clock=SystemClock())
    await reader.restore(PROJECT, None, {"workspace": tmp_path / "back"})
    await reader.close()
    assert describe(tmp_path / "back") == describe(root)


@pytest.mark.parametrize("damage", [b"", b"garbage", None], ids=["empty", "garbage", "cut"])
async def test_damaged_notes_are_not_used(tmp_path: Path, damage: bytes | None) -> None:
    """What is kept of the last look may be lost in a power cut: then everything is visited once."""
    root, store = grown(tmp_path / "tree"), MemoryStore()
    settle(root)
    await saved(tmp_path, root, store)
    (notes,) = (tmp_path / "cache").glob("*-glances")
    notes.write_bytes(notes.read_bytes()[:-20] if damage is None else damage)
    edit(root, "append", 1, 30)
    await check(tmp_path, root, await saved(tmp_path, root, store))
    assert glances.load(notes, "of another checkpoint") == {}


async def told_of(
    base: Path, root: Path, store: MemoryStore, **more: Any
) -> tuple[Saved, list[Progress]]:
    """Save *root* and return what was told meanwhile, however quick it was."""
    told: list[Progress] = []
    made = Checkpoints(store, cache=base / "cache", clock=SystemClock(), **more)
    try:
        return await made.save(PROJECT, {"workspace": root}, progress=told.append), told
    finally:
        await made.close()


async def test_a_save_tells_how_much_it_will_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files' bytes in a first save, those of changed files later; a file of two names counts once."""
    monkeypatch.setattr("anyon.storage.saves.PROGRESS_SECONDS", 0.0)
    store, root = MemoryStore(), tmp_path / "tree"
    root.mkdir()
    for number in range(3):
        (root / f"file-{number}").write_bytes(bytes([number]) * 1000)
    os.link(root / "file-1", root / "linked")
    settle(root)
    _, told = await told_of(tmp_path, root, store)
    assert told[0].total_bytes == 3000
    assert all(one.read_bytes <= one.total_bytes for one in told)
    (root / "file-2").write_bytes(b"x" * 700)
    settle(root)
    _, told = await told_of(tmp_path, root, store)
    assert told[0].total_bytes == 700


async def test_without_a_look_the_total_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing looked at the whole tree first, no total is made up."""
    monkeypatch.setattr("anyon.storage.saves.PROGRESS_SECONDS", 0.0)
    root = tmp_path / "tree"
    root.mkdir()
    (root / "file").write_bytes(b"some")
    _, told = await told_of(tmp_path, root, MemoryStore(), glance=None)
    assert [one.total_bytes for one in told] == [0] * len(told)
    assert told
