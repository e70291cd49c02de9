"""Verifying many checkpoints of one project: what they share is walked once, and damage is seen in each."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.storage.test_checkpoints import PROJECT, Ticks, settle

from anyon.storage import verifying
from anyon.storage.archives import Archive
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.keys import PlainKeys
from anyon.storage.readings import Reading
from anyon.storage.records import new_checkpoint_id
from anyon.storage.trees import Entry
from anyon.storage.uploads import Stop
from anyon.storage.verifying import Checks, verify

FOLDERS, MANY = 25, 12


class Past:
    """A project with many checkpoints, each with one file changed since the one before."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.archive = Archive(store, PlainKeys(), PROJECT)

    def seen(self, checks: Checks | None, *, read_data: bool = False) -> list[tuple[int, set[str]]]:
        """Return of each checkpoint its files and what is wrong."""
        found = []
        for checkpoint, _ in self.archive.checkpoint_ids():
            one = verify(
                Archive(self.store, PlainKeys(), PROJECT),
                self.archive.checkpoint(checkpoint),
                read_data=read_data,
                stop=Stop(),
                checks=checks,
            )
            # Why a pack is damaged is told with the first checkpoint that has it.
            found.append((one.files, {line.partition(" is damaged")[0] for line in one.problems}))
        return found


@pytest.fixture
async def past(tmp_path: Path) -> Past:
    store, tree = MemoryStore(), tmp_path / "tree"
    for number in range(FOLDERS):
        (tree / f"d{number}/in").mkdir(parents=True)
        (tree / f"d{number}/in/file").write_text(f"{number} " * 400)
    checkpoints = Checkpoints(store, cache=tmp_path / "cache", clock=Ticks())
    for number in range(MANY):
        (tree / f"d{number % 3}/in/file").write_text(f"changed {number} " * 400)
        settle(tree)
        await checkpoints.save(PROJECT, {"workspace": tree})
    await checkpoints.close()
    return Past(store)


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every directory that is read, in order."""
    found: list[bytes] = []
    entries = Reading.entries

    def counted(self: Reading, directory: Entry) -> list[Entry]:
        found.append(directory.node)
        return entries(self, directory)

    monkeypatch.setattr(Reading, "entries", counted)
    return found


async def test_what_is_equal_is_walked_once(past: Past, walked: list[bytes]) -> None:
    """Many checkpoints cost one walk and the directories that changed; without sharing they cost many."""
    shared = past.seen(Checks())
    once = 1 + 2 * FOLDERS
    assert len(walked) == len(set(walked)) <= once + 3 * MANY
    walked.clear()
    assert past.seen(None) == shared == [(FOLDERS, set())] * MANY
    assert len(walked) == once * MANY


async def test_beyond_the_bound_less_is_kept(
    past: Past, walked: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory is bounded: what is not kept is walked again, and what is found is the same."""
    monkeypatch.setattr(verifying, "_KEPT", 10)
    checks = Checks()
    assert past.seen(checks) == [(FOLDERS, set())] * MANY
    assert len(checks.whole) == 10
    assert len(walked) > FOLDERS * MANY


@pytest.mark.parametrize("read_data", [False, True])
@pytest.mark.parametrize("harm", ["lost", "spoilt"])
async def test_damage_is_seen_in_each(past: Past, harm: str, *, read_data: bool) -> None:
    """Whichever pack is lost or spoilt, each checkpoint is told what it is told alone."""
    for info in list(past.store.list(f"{PROJECT}/packs/")):
        data = past.store.get(info.key).data
        if harm == "lost":
            past.store.delete(info.key)
        else:
            past.store.put(info.key, data[:40] + bytes([data[40] ^ 1]) + data[41:])
        alone = past.seen(None, read_data=read_data)
        assert past.seen(Checks(), read_data=read_data) == alone
        assert not (harm == "lost" or read_data) or any(problems for _, problems in alone)
        past.store.put(info.key, data)
    assert past.seen(Checks(), read_data=read_data) == [(FOLDERS, set())] * MANY


async def test_what_is_whole_elsewhere_is_not_whole_without_its_pack(past: Past) -> None:
    """A checkpoint that does not name a pack lacks what is in it, though the one before was whole."""
    checks = Checks()
    past.seen(checks)
    newest = past.archive.checkpoint(past.archive.checkpoint_ids()[-1][0])
    _, *others = newest.packs.items()
    broken = replace(newest, id=new_checkpoint_id(newest.at), packs=dict(others))
    found = verify(past.archive, broken, read_data=False, stop=Stop(), checks=checks)
    assert not found.is_whole
