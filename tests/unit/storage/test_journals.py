"""What changed is found by the kernel's journal exactly as by looking at everything."""

import asyncio
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.storage.settling import settle

from anyon.clock import SystemClock
from anyon.storage import journals
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.folders import Folder
from anyon.storage.holders import held_by
from anyon.storage.journals import Journal
from anyon.storage.records import Checkpoint, Root
from anyon.testing.trees import describe

PROJECT = "user/project"
KINDS = (
    "append", "truncate", "touch", "mode", "folder mode", "remove", "add", "add folder", "rename",
    "rename folder", "remake folder", "link", "relink", "symlink", "attribute", "replace", "empty",
)  # fmt: skip
EDITS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 99), st.integers(0, 99)), max_size=8
)


@dataclass(frozen=True)
class Held:
    """A project that a test holds still."""

    numbers: Sequence[int] | None = ()
    since: float = 0.0

    def pids(self) -> Sequence[int] | None:
        """Return what the test says that there is."""
        return self.numbers


class Deaf(Journal):
    """A journal that hears of nothing: what a lost event would be."""

    def changes(self) -> tuple[set[Folder] | None, set[Folder]]:
        """Take what there is, and tell nothing of it."""
        super().changes()
        return set(), set()


class Refused(Journal):
    """A journal that the kernel refuses from the first directory on."""

    def watch(self, fd: int, folder: Folder) -> None:
        """Refuse."""
        self.lost = "refused"


class Flooded(Journal):
    """A journal whose queue has overflowed each time it is asked."""

    def changes(self) -> tuple[set[Folder] | None, set[Folder]]:
        """Say that anything may have changed."""
        return None, super().changes()[1]


def grow(root: Path) -> None:
    """Make a small tree with a bit of everything."""
    for number in range(6):
        folder = root / f"d{number}" / "inner"
        folder.mkdir(parents=True)
        for name in ("one", "two"):
            (folder / name).write_bytes(f"{number} {name}".encode() * 20)
        (folder.parent / "top").write_bytes(b"top")
    os.link(root / "d0/top", root / "d1/linked")
    os.link(root / "d2/inner/one", root / "d3/inner/linked")
    (root / "d4/way").symlink_to("inner/one")


def edit(root: Path, kind: str, one: int, two: int) -> None:  # noqa: C901 - a branch for each kind
    """Do one thing to the tree, of whatever is there."""
    folders = sorted(p for p in root.rglob("*") if p.is_dir() and not p.is_symlink())
    files = sorted(p for p in root.rglob("*") if p.is_file() and not p.is_symlink())
    if not folders or not files:
        return
    folder, other = folders[one % len(folders)], folders[two % len(folders)]
    file = files[one % len(files)]
    new = other / f"new-{two}"
    match kind:
        case "append":
            with file.open("ab") as open_file:
                open_file.write(b"more %d" % two)
        case "truncate":
            os.truncate(file, two)
        case "touch":
            os.utime(file, ns=(two, two * 10**9))
        case "mode":
            file.chmod(0o600 | two % 64)
        case "folder mode":
            folder.chmod(0o700 | two % 64)
        case "remove":
            file.unlink()
        case "add":
            new.write_bytes(b"new %d" % one)
        case "add folder":
            (new / "deep" / "er").mkdir(parents=True, exist_ok=True)
            (new / "deep" / "er" / "file").write_bytes(b"x%d" % one)
        case "rename":
            file.rename(new)
        case "rename folder" if not other.is_relative_to(folder):
            folder.rename(new)
        case "remake folder":
            shutil.rmtree(folder)
            folder.mkdir()
            (folder / "again").write_bytes(b"%d" % two)
        case "link":
            os.link(file, new)
        case "relink":
            file.unlink()
            os.link(files[two % len(files)], file) if len(files) > 1 and files[
                two % len(files)
            ] != file else file.write_bytes(b"")
        case "symlink":
            new.symlink_to(f"somewhere/{one}")
        case "attribute":
            os.setxattr(file, "user.test", b"%d" % two)
        case "replace":
            new.write_bytes(b"replaced %d" % two)
            new.replace(file)
        case "empty":
            shutil.rmtree(folder)


def safely(root: Path, edits: Sequence[tuple[str, int, int]]) -> None:
    """Do them, but for what cannot be done to the tree as it is by then."""
    for one in edits:
        try:
            edit(root, *one)
        except (FileExistsError, IsADirectoryError, NotADirectoryError, FileNotFoundError):
            continue


async def saved(
    base: Path,
    root: Path,
    during: Callable[[], object] = lambda: None,
    *,
    journal: Callable[[], Journal] = Journal,
    held: Held | None = Held(),
    name: str = "cache",
    store: MemoryStore | None = None,
) -> Checkpoint:
    """Save *root*; *during* is done after the copy, just before everything stands still."""

    @asynccontextmanager
    async def freeze() -> AsyncIterator[Held | None]:
        during()
        yield held

    made = Checkpoints(
        store or MemoryStore(), cache=base / name, clock=SystemClock(), journal=journal
    )
    try:
        return (await made.save(PROJECT, {"workspace": root}, freeze=freeze)).checkpoint
    finally:
        await made.close()


async def looked_at(base: Path, root: Path) -> dict[str, Root]:
    """Return what a save finds that knows nothing and looks at everything."""
    made = Checkpoints(MemoryStore(), cache=base / f"fresh-{time.time_ns()}", clock=SystemClock())
    try:
        return (await made.save(PROJECT, {"workspace": root})).checkpoint.roots
    finally:
        await made.close()


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rounds=st.lists(EDITS, min_size=1, max_size=3))
def test_a_journal_finds_what_a_scan_finds(
    tmp_path_factory: pytest.TempPathFactory, rounds: list
) -> None:
    """Whatever is done between the copy and the freeze, the result is that of looking at everything."""
    base = tmp_path_factory.mktemp("journal")
    root = base / "tree"
    grow(root)

    async def run() -> None:
        store = MemoryStore()
        for edits in rounds:
            settle(root)  # so that a glance can tell what is as it was: the rest must be heard of
            made = await saved(base, root, lambda e=edits: safely(root, e), store=store)
            assert made.look == "journal"
            assert made.roots == await looked_at(base, root)

    asyncio.run(run())


async def test_a_journal_that_drops_events_is_caught(tmp_path: Path) -> None:
    """Control: the comparison above fails for a journal that does not hear of an edit."""
    root = tmp_path / "tree"
    grow(root)
    made = await saved(tmp_path, root, lambda: edit(root, "append", 1, 1), journal=Deaf)
    assert made.look == "journal"
    assert made.roots != await looked_at(tmp_path, root)


@pytest.mark.parametrize("journal", [Refused, Flooded], ids=["refused", "flooded"])
async def test_without_a_journal_everything_is_looked_at(
    tmp_path: Path, journal: Callable[[], Journal]
) -> None:
    """A refused or overflowed journal costs time, never a change; the checkpoint says which it was."""
    root = tmp_path / "tree"
    grow(root)
    edits = [(kind, 7, 11) for kind in KINDS]
    made = await saved(tmp_path, root, lambda: safely(root, edits), journal=journal)
    assert made.look == "scan"
    assert made.roots == await looked_at(tmp_path, root)


async def test_who_cannot_tell_what_is_open_looks_at_everything(tmp_path: Path) -> None:
    """Where the engine does not name its processes, or tells nothing at all, the journal is not enough."""
    root = tmp_path / "tree"
    grow(root)
    assert (await saved(tmp_path, root, held=Held(None), name="a")).look == "scan"
    assert (await saved(tmp_path, root, held=None, name="b")).look == "scan"
    assert (await saved(tmp_path, root, held=Held((1,)), name="c")).look in {"scan", "journal"}


async def test_a_real_overflow_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More events than the kernel's queue takes make the journal say that anything may have changed."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip("the queue of this kernel is too long to fill")
    with_queue = Journal()
    folder = Folder(None, b"")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with_queue.watch(fd, folder)
    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    for _ in range(limit // 2 + 10):
        one.rename(two)
        one, two = two, one
    assert with_queue.changes()[0] is None
    assert with_queue.changes() == (set(), set())
    one.rename(two)
    assert with_queue.changes() == ({folder}, set())
    with_queue.close()
    assert with_queue.changes()[0] is None
    monkeypatch.setattr(journals, "SHARE", 0.0)
    poor = Journal()
    poor.watch(fd, folder)
    assert poor.lost
    assert poor.changes()[0] is None
    os.close(fd)


MAPPER = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
view = mmap.mmap(fd, 4096)
os.close(fd)
print("ready", flush=True)
for line in sys.stdin:
    view[:4] = line.encode()[:4]
    print("done", flush=True)
"""


@contextmanager
def mapping(file: Path) -> Iterator[tuple[int, Callable[[str], None]]]:
    """A program that writes a file through a mapping, when told to: its pid, and how to tell it."""
    with subprocess.Popen(
        [sys.executable, "-c", MAPPER, file],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdout.readline()

        def write(text: str) -> None:
            assert program.stdin is not None
            assert program.stdout is not None
            program.stdin.write(text + "\n")
            program.stdin.flush()
            program.stdout.readline()

        yield program.pid, write
        program.stdin.close()


async def test_writes_through_a_mapping_are_found(tmp_path: Path) -> None:
    """No journal hears of them and no time tells: what is mapped is read; control: it would be missed."""
    root = tmp_path / "tree"
    grow(root)
    file = root / "d5/inner/mapped"
    file.write_bytes(bytes(4096))
    store, blind_store = MemoryStore(), MemoryStore()
    with mapping(file) as (pid, write):
        for number in range(3):
            text = f"{number:04}"
            # The second and third change a page that is dirty already: not even its time moves.
            made = await saved(
                tmp_path, root, lambda t=text: write(t), held=Held((pid,)), store=store
            )
            assert made.look == "journal"
            assert await first_bytes(tmp_path, store) == text.encode()
        await saved(tmp_path, root, name="blind", store=blind_store)
        await saved(tmp_path, root, lambda: write("last"), name="blind", store=blind_store)
        assert await first_bytes(tmp_path, blind_store) != b"last"


async def first_bytes(base: Path, store: MemoryStore) -> bytes:
    """Return how the mapped file begins in the last checkpoint."""
    made = Checkpoints(store, cache=base / "reader", clock=SystemClock())
    try:
        return await made.read(PROJECT, None, "workspace/d5/inner/mapped", limit_bytes=4)
    finally:
        await made.close()


def test_what_programs_hold(tmp_path: Path) -> None:
    """Files open for writing and shared mappings are named; files that are only read are not."""
    read, written, mapped = tmp_path / "read", tmp_path / "written", tmp_path / "mapped"
    for file in (read, written, mapped):
        file.write_bytes(bytes(4096))
    with read.open("rb"), written.open("ab"), mapping(mapped) as (pid, _):
        held = held_by([os.getpid(), pid, 2**22 + 1])
        assert held is not None
        assert {written.stat().st_ino, mapped.stat().st_ino} <= held.writable
        assert mapped.stat().st_ino in held.mapped
        assert read.stat().st_ino not in held.writable


async def test_a_busy_writer_and_many_saves(tmp_path: Path) -> None:
    """While a program changes the tree without pause, each save is of the instant of its freeze."""
    root = tmp_path / "tree"
    grow(root)
    source = random.Random(5)
    store = MemoryStore()
    for turn in range(8):
        edits = [
            (source.choice(KINDS), source.randrange(99), source.randrange(99)) for _ in range(12)
        ]
        safely(root, edits[:6])
        made = await saved(tmp_path, root, lambda e=edits: safely(root, e[6:]), store=store)
        assert made.look == "journal"
        back = tmp_path / f"back-{turn}"
        reader = Checkpoints(store, cache=tmp_path / "reader", clock=SystemClock())
        await reader.restore(PROJECT, made.id, {"workspace": back})
        await reader.close()
        assert describe(back) == describe(root)
