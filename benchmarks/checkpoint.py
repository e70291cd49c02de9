"""Checkpoints against restic, rclone and tar on one tree, the pause of a live project, its work meanwhile.

The tree is a project of that many files, sources beside a `node_modules`, saved into a directory. *First*: nothing is stored
yet; *20 files changed*: somebody edited a little; *unchanged*: nobody did. *Stored* is what the first took up in the store. The pause is how
long a project in which programs write all the while is held still so that all files are of one instant, as the server counts
it, and as a program inside feels it (which on a busy machine waits for the processor too, hence the same without a save).
Last, two jobs with and without checkpoints: npm that installs a `node_modules` again and again, from archives beside it (the
target's own case), and `tar` that only unpacks one, which nothing but the disk holds up: no agent works like that, it is the worst case.
"""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from anyon.clock import SystemClock
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.files import FilesStore
from benchmarks import _first_save, _live_saves
from benchmarks._rivals import Restic, median, need, pack, rclone, timed
from benchmarks._trees import SIZES, change, make_tree, size_of
from benchmarks.report import QUICK, Row, percentile, rounds

SERVICES = ("rivals",)
FIRST = rounds(5)
ROUNDS = rounds(7)
PAUSES = int(os.environ.get("ANYON_BENCH_PAUSES", str(rounds(100))))
WORK_SECONDS = float(os.environ.get("ANYON_BENCH_WORK_SECONDS", str(rounds(6) * 5)))
WORK_ROUNDS = rounds(5)
JOB_FILES = 6000
MAX_PAUSE_SECONDS = 0.05
MAX_GROWTH_BYTES = 150 << 20


def sizes() -> Sequence[int]:
    """Return how many files the trees have: ``ANYON_BENCH_FILES`` (``28000,100000``), else both."""
    text = os.environ.get("ANYON_BENCH_FILES", "")
    if text:
        return [int(part) for part in text.split(",")]
    return [2000] if QUICK in os.environ else SIZES


def first_save(base: Path, tree: Path, turn: int) -> dict[str, float]:
    """Take a first checkpoint in a process of its own."""
    os.sync()
    words = [str(tree), str(base / f"store-{turn}"), str(base / f"cache-{turn}")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._first_save", *words], check=True, stdout=subprocess.PIPE
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


async def later_saves(base: Path, tree: Path, own: list[Path], turn: int) -> dict[str, float]:
    """Return the medians of unchanged and of incremental checkpoints."""
    made = Checkpoints(
        FilesStore(base / f"store-{turn}"), cache=base / f"cache-{turn}", clock=SystemClock()
    )

    def save(_: int) -> None:
        future = asyncio.run_coroutine_threadsafe(
            made.save(_first_save.PROJECT, {"workspace": tree}), loop
        )
        future.result()

    loop = asyncio.get_running_loop()
    found = {}
    for name in ("unchanged", "incremental"):
        found[name] = await asyncio.to_thread(
            median,
            save,
            ROUNDS,
            partial(change, own) if name == "incremental" else _nothing,
        )
    await made.close()
    return found


def ours(base: Path, tree: Path, own: list[Path]) -> dict[str, float]:
    """Return Anyon's figures."""
    firsts = [first_save(base, tree, turn) for turn in range(FIRST)]
    found = {
        "first": statistics.median(one["seconds"] for one in firsts),
        "growth": max(one["growth_bytes"] for one in firsts),
        "stored": float(size_of(base / "store-0")),
    }
    return found | asyncio.run(later_saves(base, tree, own, 0))


def restics(base: Path, tree: Path, own: list[Path]) -> dict[str, float]:
    """Return restic's figures."""
    lengths = []
    for turn in range(FIRST):
        (base / f"r{turn}").mkdir()
        repository = Restic(base / f"r{turn}")
        lengths.append(timed(partial(repository.backup, tree)))
    found = {"first": statistics.median(lengths), "stored": float(size_of(repository.place))}
    for name in ("unchanged", "incremental"):
        found[name] = median(
            lambda _: repository.backup(tree),
            ROUNDS,
            (lambda turn: change(own, 50 + turn)) if name == "incremental" else _nothing,
        )
    return found


def compared(base: Path, files: int, *, with_rclone: bool) -> list[Row]:
    """Measure a tree of that many files with everything."""
    tree = base / "tree"
    own = make_tree(tree, files)
    seen = ours(base, tree, own)
    theirs = restics(base, tree, own)
    what = f"{files} files, {size_of(tree) / 1e6:.0f} MB"
    rows = [
        row(f"{what}: first (n={FIRST})", seen["first"], "s", theirs["first"], 1.0),
        row(f"{what}: stored", seen["stored"] / 1e6, "MB", theirs["stored"] / 1e6, 1.1),
        row(f"{what}: 20 files changed (n={ROUNDS})", seen["incremental"], "s", theirs["incremental"], 0.2),
        row(f"{what}: unchanged (n={ROUNDS})", seen["unchanged"], "s", theirs["unchanged"], 0.15),
        Row(
            what=f"{what}: growth of the server's memory in the first (max of {FIRST})",
            value=seen["growth"] / 1e6,
            unit="MB",
            reference="bound",
            reference_value=MAX_GROWTH_BYTES / 1e6,
            target_ratio=1.0,
        ),
        row(
            f"{what}: tar.gz", timed(lambda: pack(tree, base / "tree.tgz")), "s", theirs["first"], None
        ),
    ]  # fmt: skip
    if with_rclone:
        copied = timed(lambda: rclone(tree, base / "rclone"))
        rows.append(row(f"{what}: rclone's first", copied, "s", theirs["first"], None))
        for_change = median(
            lambda _: rclone(tree, base / "rclone"), 2, lambda turn: change(own, 80 + turn)
        )
        rows.append(row(f"{what}: rclone's 20 files", for_change, "s", theirs["incremental"], None))
    return rows


def row(what: str, value: float, unit: str, reference: float, target: float | None) -> Row:
    """Return a row against restic."""
    return Row(
        what=what,
        value=value,
        unit=unit,
        reference="restic",
        reference_value=reference,
        target_ratio=target,
    )


async def lively(base: Path, files: int) -> list[Row]:
    """Measure the pause of a project that is written to all the while, and a job in it."""
    rows = []
    async with _live_saves.project_of(base, files) as live:
        found = await _live_saves.pauses(live, PAUSES)
        print(_live_saves.facts(found), file=sys.stderr)
        looks = "/".join(sorted(found.looks))
        for name, values, share, target in (
            ("pause p50", found.seconds, 0.5, None),
            ("pause p99", found.seconds, 0.99, 1.0),
            ("longest stop that a program inside felt, p50", found.felt, 0.5, None),
            ("… and without a save", found.quiet, 0.5, None),
        ):
            rows.append(
                Row(
                    what=f"{files} files, written to: {name} (n={PAUSES}, by {looks})",
                    value=percentile(values, share) * 1000,
                    unit="ms",
                    reference="bound",
                    reference_value=MAX_PAUSE_SECONDS * 1000,
                    target_ratio=target,
                )
            )
        rows += await jobs(base, live)
    return rows


def _nothing(_: int) -> None:
    """Change nothing."""


async def jobs(base: Path, live: _live_saves.Live) -> list[Row]:
    """Compare how often each job is done without and with checkpoints, in turns."""
    await asyncio.to_thread(_live_saves.make_jobs, base, live.tree, JOB_FILES)
    rows = []
    for job in (_live_saves.INSTALLING, _live_saves.UNPACKING):
        without, meanwhile = [], []
        for _ in range(WORK_ROUNDS):
            without.append(await _live_saves.work(live, job, WORK_SECONDS, None))
            meanwhile.append(await _live_saves.work(live, job, WORK_SECONDS, WORK_SECONDS))
        what = f"{JOB_FILES} files {job.words} again and again"
        rows.append(
            Row(
                what=f"{what}, a checkpoint every {WORK_SECONDS:g} s (n={WORK_ROUNDS})",
                value=1 / statistics.median(meanwhile),
                unit="s",
                reference="without",
                reference_value=1 / statistics.median(without),
                target_ratio=job.target,
            )
        )
    return rows


def run() -> Sequence[Row]:
    """Measure; the first size with everything, larger ones without what takes minutes."""
    need()
    rows: list[Row] = []
    for number, files in enumerate(sizes()):
        base = Path(tempfile.mkdtemp(prefix="anyon-bench-"))
        try:
            rows += compared(base, files, with_rclone=number == 0)
            shutil.rmtree(base / "tree")
            rows += asyncio.run(lively(base, files))
        finally:
            shutil.rmtree(base, ignore_errors=True)
    return rows
