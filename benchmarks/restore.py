"""Bringing a project's files back, against restic, tar and rclone on the same tree.

The tree is a project of that many files, sources beside a `node_modules`; each time it comes back to an empty place, by
somebody who has nothing but the store (no cache), and counts once it is on the disk. rclone copies files one by one and takes
minutes, so it is measured once, and with the smaller tree only.
"""

import asyncio
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from anyon.clock import SystemClock
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.files import FilesStore
from benchmarks._first_save import PROJECT
from benchmarks._rivals import Restic, need, pack, rclone, timed, unpack
from benchmarks._trees import make_tree, size_of
from benchmarks.checkpoint import row, sizes
from benchmarks.report import Row, rounds

SERVICES = ("rivals",)
ROUNDS = rounds(5)


def in_turns(works: Mapping[str, Callable[[Path], object]], base: Path) -> dict[str, float]:
    """Return the median seconds of each of *works*, in turns, each time to a new place; all of it stays.

    Nothing is removed between, since ext4 does not use inodes again that were deleted in the last
    minutes and searches past each of them (``recently_deleted`` in its ``ialloc.c``): whoever
    made files after a large removal would pay for that.
    """
    lengths: dict[str, list[float]] = {name: [] for name in works}
    for number in range(ROUNDS):
        for name, work in works.items():
            lengths[name].append(timed(partial(work, base / f"{name}-{number}")))
    return {name: statistics.median(taken) for name, taken in lengths.items()}


def saved(base: Path, tree: Path) -> Callable[[Path], None]:
    """Take a checkpoint, and return what brings it back on a machine that knows nothing of it."""

    async def save() -> None:
        made = Checkpoints(FilesStore(base / "store"), cache=base / "cache", clock=SystemClock())
        await made.save(PROJECT, {"workspace": tree})
        await made.close()

    async def restore(target: Path) -> None:
        fresh = Checkpoints(FilesStore(base / "store"), cache=base / "none", clock=SystemClock())
        await fresh.restore(PROJECT, None, {"workspace": target})
        await fresh.close()

    asyncio.run(save())
    return lambda target: asyncio.run(restore(target))


def compared(base: Path, files: int, *, with_rclone: bool) -> list[Row]:
    """Measure a tree of that many files with everything."""
    tree = base / "tree"
    make_tree(tree, files)
    what = f"{files} files, {size_of(tree) / 1e6:.0f} MB"
    repository = Restic(base)
    repository.backup(tree)
    archive = base / "tree.tgz"
    pack(tree, archive)
    works: dict[str, Callable[[Path], object]] = {
        "ours": saved(base, tree),
        "restic": repository.restore,
        "tar": partial(unpack, archive),
    }
    took = in_turns(works, base)
    rows = [
        row(f"{what}: restore (n={ROUNDS})", took["ours"], "s", took["restic"], 0.7),
        row(f"{what}: tar xzf (n={ROUNDS})", took["tar"], "s", took["restic"], None),
    ]
    if with_rclone:
        copied = timed(lambda: rclone(tree, base / "rclone"))
        rows.append(row(f"{what}: rclone copy (n=1)", copied, "s", took["restic"], None))
    return rows


def run() -> Sequence[Row]:
    """Measure each size."""
    need()
    rows: list[Row] = []
    for number, files in enumerate(sizes()):
        base = Path(tempfile.mkdtemp(prefix="anyon-bench-"))
        try:
            rows += compared(base, files, with_rclone=number == 0)
        finally:
            shutil.rmtree(base, ignore_errors=True)
    return rows
