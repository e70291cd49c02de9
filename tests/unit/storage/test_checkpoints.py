"""Checkpoints of trees: everything comes back, changes are found, nothing else is read."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.unit.storage.settling import settle

from anyon.domain.errors import ConflictError, InvalidInputError, MissingError, NotFoundError
from anyon.storage import saves
from anyon.storage.archives import OwnershipLostError
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.folders import remove_tree
from anyon.storage.keys import FileKeys
from anyon.storage.objects import DamagedError
from anyon.testing.trees import describe, make_deep, make_hostile

PROJECT = "user/project"


class Ticks:
    """A clock that a test owns."""

    def __init__(self) -> None:
        self.at = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """Return the time, one second later at each asking."""
        self.at += timedelta(seconds=1)
        return self.at

    def monotonic(self) -> float:
        """Return the seconds of the same clock."""
        return self.at.timestamp()

    async def sleep(self, length: timedelta) -> None:
        """Move the clock."""
        self.at += length


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> Ticks:
    return Ticks()


@pytest.fixture
async def checkpoints(
    store: MemoryStore, clock: Ticks, tmp_path: Path
) -> AsyncIterator[Checkpoints]:
    made = Checkpoints(store, cache=tmp_path / "cache", clock=clock, server="one")
    yield made
    await made.close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name in ("a/1", "a/2", "a/b/3", "c/4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    settle(root)
    return root


async def test_a_hostile_tree_comes_back(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Names, modes, owners, times, links, holes and attributes are restored byte for byte."""
    make_hostile(tmp_path / "tree")
    saved = await checkpoints.save(PROJECT, {"workspace": tmp_path / "tree"})
    assert sorted(what for _, what in saved.report.skipped) == ["fifo", "socket"]
    await checkpoints.restore(PROJECT, None, {"workspace": tmp_path / "back"})
    assert describe(tmp_path / "back") == describe(tmp_path / "tree")
    assert os.lstat(tmp_path / "back/sparse").st_blocks * 512 < 1 << 20


async def test_the_description_sees_what_it_compares(tmp_path: Path) -> None:
    """The comparison above is not blind: one byte, mode, time or link is a difference."""
    make_hostile(tmp_path / "tree")
    before = describe(tmp_path / "tree")
    for change in (
        lambda: (tmp_path / "tree/exact").chmod(0o600),
        lambda: os.utime(tmp_path / "tree/exact", ns=(1, 2)),
        (tmp_path / "tree/empty/hard-2").unlink,
    ):
        change()
        after = describe(tmp_path / "tree")
        assert after != before
        before = after


async def test_several_trees(checkpoints: Checkpoints, tree: Path, tmp_path: Path) -> None:
    """The trees of a project are one checkpoint, and each can be restored alone."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home/session").write_text("s")
    await checkpoints.save(PROJECT, {"workspace": tree, "home": tmp_path / "home"})
    targets = {"workspace": tmp_path / "w", "home": tmp_path / "h"}
    await checkpoints.restore(PROJECT, None, targets)
    assert describe(tmp_path / "h") == describe(tmp_path / "home")
    assert describe(tmp_path / "w") == describe(tree)
    await checkpoints.restore(PROJECT, None, {"workspace/a": tmp_path / "only-a"})
    assert describe(tmp_path / "only-a") == describe(tree / "a")


async def test_only_what_changed_is_read(checkpoints: Checkpoints, tree: Path) -> None:
    """The second checkpoint reads the one changed file and writes one small object."""
    first = await checkpoints.save(PROJECT, {"workspace": tree})
    assert (first.report.read_files, first.checkpoint.files) == (4, 4)
    (tree / "a/b/3").write_text("changed")
    settle(tree)
    second = await checkpoints.save(PROJECT, {"workspace": tree})
    assert second.report.read_files == 1
    assert second.checkpoint.parent == first.checkpoint.id
    assert second.checkpoint.new_bytes < 2000
    third = await checkpoints.save(PROJECT, {"workspace": tree})
    assert (third.is_new, third.checkpoint, third.report.read_files) == (
        False,
        second.checkpoint,
        0,
    )


async def test_edits_of_every_kind_are_seen(
    checkpoints: Checkpoints, tree: Path, tmp_path: Path
) -> None:
    """Whatever is done to a tree between checkpoints, the last one is the tree as it is."""

    def grow() -> None:
        (tree / "a/1").write_text("a/0")  # the same size, perhaps within the same tick

    edits = [
        grow,
        (tree / "a/2").unlink,
        lambda: (tree / "a").rename(tree / "moved"),
        lambda: (tree / "c/4").chmod(0o600),
        lambda: os.utime(tree / "c/4", ns=(3, 3)),
        lambda: shutil.rmtree(tree / "moved/b"),
        lambda: (tree / "moved").chmod(0o700),
        (tree / "c/4").unlink,
        (tree / "c/4").mkdir,
        lambda: (tree / "c/link").symlink_to("4"),
        lambda: (tree / "c/new").write_bytes(b"\0" * 100),
        lambda: (tree / "c/again").hardlink_to(tree / "c/new"),
        lambda: os.utime(tree, ns=(9, 9)),
    ]
    for number, edit in enumerate(edits):
        edit()
        await checkpoints.save(PROJECT, {"workspace": tree})
        await checkpoints.restore(PROJECT, None, {"workspace": tmp_path / f"back-{number}"})
        assert describe(tmp_path / f"back-{number}") == describe(tree), number


async def test_a_change_within_the_same_tick(
    checkpoints: Checkpoints, tree: Path, tmp_path: Path
) -> None:
    """A file rewritten at the same size and with its old times right after a scan is seen."""
    file = tree / "a/1"
    for turn in range(20):
        file.write_text(f"{turn:3}")
        os.utime(file, ns=(1, 1))
        await checkpoints.save(PROJECT, {"workspace": tree})
        assert (
            await checkpoints.read(PROJECT, None, "workspace/a/1", limit_bytes=9) == b"%3d" % turn
        )


async def test_a_lost_cache_costs_only_time(
    checkpoints: Checkpoints, store: MemoryStore, clock: Ticks, tree: Path, tmp_path: Path
) -> None:
    """Another machine builds on the last checkpoint: it reads all and uploads nothing twice."""
    first = await checkpoints.save(PROJECT, {"workspace": tree})
    other = Checkpoints(store, cache=tmp_path / "other", clock=clock)
    again = await other.save(PROJECT, {"workspace": tree})
    assert (again.is_new, again.report.read_files) == (False, 4)
    (tree / "new").write_text("n")
    newer = await other.save(PROJECT, {"workspace": tree})
    assert newer.checkpoint.parent == first.checkpoint.id
    # The first machine's cache does not fit the head any more: it must not be trusted.
    (tree / "a/1").write_text("from the first")
    last = await checkpoints.save(PROJECT, {"workspace": tree})
    await other.close()
    await checkpoints.restore(PROJECT, last.checkpoint.id, {"workspace": tmp_path / "back"})
    assert describe(tmp_path / "back") == describe(tree)


async def test_a_damaged_cache_is_dropped(
    checkpoints: Checkpoints, tree: Path, tmp_path: Path
) -> None:
    """A cache file of garbage is replaced, and the checkpoint is as it should be."""
    await checkpoints.save(PROJECT, {"workspace": tree})
    (cache,) = (tmp_path / "cache").glob("*.db")
    cache.write_bytes(b"garbage" * 1000)
    saved = await checkpoints.save(PROJECT, {"workspace": tree})
    assert (saved.is_new, saved.report.read_files) == (False, 4)


async def test_a_freeze_is_short_and_sees_the_last_state(
    checkpoints: Checkpoints, tree: Path, tmp_path: Path
) -> None:
    """Inside the freeze only what changed since the copy is read, and that is what is kept."""
    frozen = []

    @asynccontextmanager
    async def freeze() -> AsyncIterator[None]:
        (tree / "a/1").write_text("at the moment of the freeze")
        frozen.append(True)
        yield
        frozen.append(False)

    saved = await checkpoints.save(PROJECT, {"workspace": tree}, freeze=freeze)
    assert frozen == [True, False]
    assert 0 < saved.pause_seconds < 30
    assert saved.report.read_files == 5
    await checkpoints.restore(PROJECT, None, {"workspace": tmp_path / "back"})
    assert describe(tmp_path / "back") == describe(tree)


async def test_a_very_deep_tree(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """A tree far deeper than a path or a recursion can be is captured, restored and removed."""
    make_deep(tmp_path / "deep", 4_000)
    saved = await checkpoints.save(PROJECT, {"workspace": tmp_path / "deep"})
    assert saved.checkpoint.files == 1
    await checkpoints.restore(PROJECT, None, {"workspace": tmp_path / "back"})
    remove_tree(bytes(tmp_path / "deep"))
    again = await checkpoints.save(PROJECT, {"workspace": tmp_path / "back"})
    assert again.checkpoint.files == 1
    remove_tree(bytes(tmp_path / "back"))


async def test_a_huge_hole(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """A sparse file of terabytes costs what its data costs."""
    root = tmp_path / "tree"
    root.mkdir()
    with (root / "huge").open("wb") as file:
        file.truncate(8 << 40)
        file.seek(5 << 40)
        file.write(b"x")
    saved = await checkpoints.save(PROJECT, {"workspace": root})
    assert saved.checkpoint.new_bytes < 100_000
    await checkpoints.restore(PROJECT, None, {"workspace": tmp_path / "back"})
    with (tmp_path / "back/huge").open("rb") as file:
        file.seek(5 << 40)
        assert file.read(2) == b"x\0"
    assert os.lstat(tmp_path / "back/huge").st_size == 8 << 40


async def test_what_is_left_out(store: MemoryStore, clock: Ticks, tmp_path: Path) -> None:
    """Caches and credentials of the home are left out; of the workspace only the spare worktree."""
    home = tmp_path / "home"
    for name in (".cache/x/y", ".claude/.credentials.json", ".claude/session", ".npmrc"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("x")
    work = tmp_path / "work"
    (work / ".cache").mkdir(parents=True)
    (work / ".cache/z").write_text("x")
    for name in ("anyon-spare", "1234-work"):
        (work / ".worktrees" / name).mkdir(parents=True)
    made = Checkpoints(store, cache=tmp_path / "cache", clock=clock)
    await made.save(PROJECT, {"workspace": work, "home": home})
    await made.restore(PROJECT, None, {"home": tmp_path / "h", "workspace": tmp_path / "w"})
    await made.close()
    found = {str(p.relative_to(tmp_path / "h")) for p in (tmp_path / "h").rglob("*")}
    assert found == {".cache", ".claude", ".claude/session"}
    assert (tmp_path / "w/.cache/z").exists()
    assert [p.name for p in (tmp_path / "w/.worktrees").iterdir()] == ["1234-work"]
    with pytest.raises(InvalidInputError):
        Checkpoints(store, cache=tmp_path, clock=clock, exclusions=["workspace/.git"])


async def test_reading_and_comparing_without_restoring(
    checkpoints: Checkpoints, tree: Path
) -> None:
    """Directories, files and differences are read from the store alone."""
    one = (await checkpoints.save(PROJECT, {"workspace": tree})).checkpoint.id
    (tree / "a/b/3").write_text("other")
    (tree / "c/4").unlink()
    two = (await checkpoints.save(PROJECT, {"workspace": tree})).checkpoint.id
    names = [e.name for e in await checkpoints.entries(PROJECT, one, "workspace/a")]
    assert sorted(names) == [b"1", b"2", b"b"]
    assert await checkpoints.read(PROJECT, one, "workspace/a/b/3", limit_bytes=99) == b"a/b/3"
    assert await checkpoints.read(PROJECT, two, "workspace/a/b/3", limit_bytes=3) == b"oth"
    changed = {d.path: (d.before, d.after) for d in await checkpoints.diff(PROJECT, one, two)}
    assert set(changed) == {b"workspace/a/b/3", b"workspace/c/4"}
    assert changed[b"workspace/c/4"][1] is None
    with pytest.raises(NotFoundError):
        await checkpoints.read(PROJECT, one, "workspace/no", limit_bytes=1)
    assert [c.id for c in await checkpoints.list(PROJECT)] == [two, one]


async def test_a_target_in_the_way(checkpoints: Checkpoints, tree: Path, tmp_path: Path) -> None:
    """A restore never touches what is there, and leaves nothing of itself when it fails."""
    await checkpoints.save(PROJECT, {"workspace": tree})
    (tmp_path / "there").mkdir()
    (tmp_path / "there/mine").write_text("mine")
    with pytest.raises(ConflictError):
        await checkpoints.restore(PROJECT, None, {"workspace": tmp_path / "there"})
    assert [p.name for p in (tmp_path / "there").iterdir()] == ["mine"]
    with pytest.raises(NotFoundError):
        await checkpoints.restore("user/none", None, {"workspace": tmp_path / "x"})
    assert not [p for p in tmp_path.iterdir() if "restoring" in p.name]


async def test_every_flipped_byte_is_seen(
    checkpoints: Checkpoints, store: MemoryStore, tree: Path, tmp_path: Path
) -> None:
    """A change of any one byte of any object is found, never restored as if it were whole."""
    await checkpoints.save(PROJECT, {"workspace": tree})
    for info in list(store.list("")):
        whole = store.get(info.key).data
        for at in range(0, len(whole), max(1, len(whole) // 97)):
            flipped = bytearray(whole)
            flipped[at] ^= 0x41
            store.put(info.key, bytes(flipped))
            try:
                seen = await checkpoints.verify(PROJECT, read_data=True)
                problems = seen.problems
            except (DamagedError, MissingError, NotFoundError) as error:
                problems = [error.message]
            assert problems, (info.key, at)
        store.put(info.key, whole)
    assert (await checkpoints.verify(PROJECT, read_data=True)).is_whole


async def test_damage_is_named_by_file(
    checkpoints: Checkpoints, store: MemoryStore, tmp_path: Path
) -> None:
    """A restore from a damaged pack names the file, and leaves no target."""
    root = tmp_path / "tree"
    root.mkdir()
    (root / "victim").write_bytes(os.urandom(6 << 20))
    await checkpoints.save(PROJECT, {"workspace": root})
    (pack,) = [i for i in store.list(f"{PROJECT}/packs/") if i.size_bytes > 1 << 20]
    data = bytearray(store.get(pack.key).data)
    data[len(data) // 2] ^= 1
    store.put(pack.key, bytes(data))
    with pytest.raises(DamagedError, match="victim"):
        await checkpoints.restore(PROJECT, None, {"workspace": tmp_path / "back"})
    assert [p.name for p in tmp_path.iterdir() if "back" in p.name] == []


async def test_records_of_another_project_are_refused(
    checkpoints: Checkpoints, store: MemoryStore, tree: Path
) -> None:
    """A head that was copied from another project is not taken for this one's."""
    await checkpoints.save(PROJECT, {"workspace": tree})
    for info in list(store.list(PROJECT)):
        store.put(info.key.replace(PROJECT, "user/thief"), store.get(info.key).data)
    with pytest.raises(DamagedError):
        await checkpoints.latest("user/thief")


async def test_encryption(store: MemoryStore, clock: Ticks, tree: Path, tmp_path: Path) -> None:
    """With keys no content is in the store in the clear; keys rotate; without them is an error."""
    (tree / "secret").write_text("the very secret text " * 10)
    file = tmp_path / "keys.json"
    file.write_text('{"keys": ["' + "ab" * 32 + '"]}')
    one = Checkpoints(store, cache=tmp_path / "k", clock=clock, keys=FileKeys(file))
    first = await one.save(PROJECT, {"workspace": tree})
    file.write_text('{"keys": ["' + "ab" * 32 + '", "' + "cd" * 32 + '"]}')
    two = Checkpoints(store, cache=tmp_path / "k", clock=clock, keys=FileKeys(file))
    second = await two.save(PROJECT, {"workspace": tree})
    assert second.report.read_files == 5
    assert not set(first.checkpoint.packs) & set(second.checkpoint.packs)
    assert all(b"very secret" not in store.get(i.key).data for i in store.list(""))
    for saved in (first, second):
        target = tmp_path / saved.checkpoint.id
        await two.restore(PROJECT, saved.checkpoint.id, {"workspace": target})
        assert describe(target) == describe(tree)
    plain = Checkpoints(store, cache=tmp_path / "p", clock=clock)
    with pytest.raises(MissingError):
        await plain.latest(PROJECT)
    for made in (one, two, plain):
        await made.close()


async def test_a_missing_tree_is_an_error(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """A tree that is not there is never taken for an empty one."""
    with pytest.raises(NotFoundError):
        await checkpoints.save(PROJECT, {"workspace": tmp_path / "none"})
    assert await checkpoints.latest(PROJECT) is None


async def test_a_tree_that_goes_while_it_is_read(
    checkpoints: Checkpoints, store: MemoryStore, tree: Path
) -> None:
    """A tree that is removed in the middle of a save ends it with words, and confirms nothing."""

    @asynccontextmanager
    async def freeze() -> AsyncIterator[None]:
        shutil.rmtree(tree)
        yield

    with pytest.raises(NotFoundError) as gone:
        await checkpoints.save(PROJECT, {"system": tree}, freeze=freeze)
    assert gone.value.code == "tree_not_found"
    assert await checkpoints.latest(PROJECT) is None


async def test_a_cancelled_save_ends(checkpoints: Checkpoints, tree: Path) -> None:
    """After a cancelled call nothing goes on; the next save works."""
    task = asyncio.create_task(checkpoints.save(PROJECT, {"workspace": tree}))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    saved = await checkpoints.save(PROJECT, {"workspace": tree})
    assert saved.checkpoint.files == 4


async def test_a_taken_over_project(
    checkpoints: Checkpoints, store: MemoryStore, clock: Ticks, tree: Path, tmp_path: Path
) -> None:
    """A server whose lease ran out and was taken over confirms nothing any more."""
    length = timedelta(minutes=1)
    mine = await checkpoints.claim(PROJECT, length=length)
    await checkpoints.save(PROJECT, {"workspace": tree}, epoch=mine.epoch)
    other = Checkpoints(store, cache=tmp_path / "o", clock=clock, server="two")
    with pytest.raises(ConflictError):
        await other.claim(PROJECT, length=length)
    assert (await checkpoints.claim(PROJECT, length=length)).epoch == mine.epoch
    clock.at += timedelta(minutes=5)
    theirs = await other.claim(PROJECT, length=length)
    assert theirs.epoch == mine.epoch + 1
    before = await other.latest(PROJECT)
    (tree / "a/1").write_text("by the former owner")
    for call in (
        checkpoints.save(PROJECT, {"workspace": tree}, epoch=mine.epoch),
        checkpoints.collect(PROJECT, epoch=mine.epoch),
    ):
        with pytest.raises(OwnershipLostError):
            await call
    assert await other.latest(PROJECT) == before
    await other.save(PROJECT, {"workspace": tree}, epoch=theirs.epoch)
    await other.release(PROJECT, theirs)
    assert (await checkpoints.claim(PROJECT, length=length)).epoch == theirs.epoch + 1
    await other.close()


async def test_garbage_collection(
    checkpoints: Checkpoints, store: MemoryStore, clock: Ticks, tree: Path, tmp_path: Path
) -> None:
    """Old checkpoints go by the retention, packs once nothing needs them, and never the head."""
    clock.at = datetime.now(UTC) - timedelta(days=500)
    ids = []
    for turn in range(5):
        (tree / "big").write_bytes(os.urandom(50_000))
        ids.append(
            (await checkpoints.save(PROJECT, {"workspace": tree}, reason=str(turn))).checkpoint.id
        )
    store.put(f"{PROJECT}/packs/aa/{'a' * 64}", b"left by a crash")
    clock.at = datetime.now(UTC)
    nothing = await checkpoints.collect(PROJECT)  # all is within the grace
    assert (nothing.checkpoints, nothing.packs) == (0, 0)
    clock.at = datetime.now(UTC) + timedelta(days=3)
    collected = await checkpoints.collect(PROJECT)
    assert (collected.checkpoints, collected.packs) == (4, 4)
    assert [c.id for c in await checkpoints.list(PROJECT)] == [ids[-1]]
    assert (await checkpoints.verify(PROJECT, read_data=True)).is_whole
    (tree / "big").write_bytes(os.urandom(50_000))
    await checkpoints.save(PROJECT, {"workspace": tree})
    await checkpoints.restore(PROJECT, None, {"workspace": tmp_path / "back"})
    assert describe(tmp_path / "back") == describe(tree)


async def test_small_packs_are_joined(
    checkpoints: Checkpoints,
    store: MemoryStore,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many small saves there were, the latest needs few packs, and is whole."""
    monkeypatch.setattr(saves, "MAX_SMALL_PACKS", 5)
    most = 0
    for turn in range(30):
        (tree / f"a/b/new-{turn}").write_text(f"{turn}")
        (tree / f"own-{turn}").mkdir()
        (tree / f"own-{turn}/file").write_text(f"own {turn}")
        saved = await checkpoints.save(PROJECT, {"workspace": tree})
        most = max(most, len(saved.checkpoint.packs))
    assert 3 < most <= 7
    assert (await checkpoints.verify(PROJECT, read_data=True)).is_whole
    await checkpoints.restore(PROJECT, None, {"workspace": tmp_path / "back"})
    assert describe(tmp_path / "back") == describe(tree)


async def test_deleting_a_project(checkpoints: Checkpoints, store: MemoryStore, tree: Path) -> None:
    """Everything of the project goes, nothing of a project whose name begins alike."""
    await checkpoints.save(PROJECT, {"workspace": tree})
    await checkpoints.save(PROJECT + "2", {"workspace": tree})
    await checkpoints.delete(PROJECT)
    assert list(store.list(PROJECT + "/")) == []
    assert (await checkpoints.verify(PROJECT + "2")).is_whole
    assert (await checkpoints.save(PROJECT, {"workspace": tree})).is_new


async def test_records_that_did_not_change_are_not_put_again(
    checkpoints: Checkpoints, store: MemoryStore, tree: Path
) -> None:
    """The project's own records are known to be in the store, like its files: nothing new, no new pack."""
    await checkpoints.save(PROJECT, {"workspace": tree}, records=b"rows")
    before = [info.key for info in store.list(f"{PROJECT}/packs/")]
    again = await checkpoints.save(PROJECT, {"workspace": tree}, records=b"rows")
    assert not again.is_new
    assert [info.key for info in store.list(f"{PROJECT}/packs/")] == before
    (tree / "c/4").write_text("changed")
    changed = await checkpoints.save(PROJECT, {"workspace": tree}, records=b"rows")
    after = {info.key for info in store.list(f"{PROJECT}/packs/")}
    assert len(after - set(before)) == 1
    assert await checkpoints.records(PROJECT, changed.checkpoint.id) == b"rows"
