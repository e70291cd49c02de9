"""restic, rclone and tar on the same tree, as somebody would run them."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that *work* takes, what was written before being on disk."""
    os.sync()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median(work: Callable[[int], object], rounds: int, before: Callable[[int], object]) -> float:
    """Return the median seconds of *work*; *before* each round is not counted."""
    lengths = []
    for turn in range(rounds):
        before(turn)
        lengths.append(timed(partial(work, turn)))
    return statistics.median(lengths)


class Restic:
    """A restic repository in a directory."""

    def __init__(self, base: Path) -> None:
        self.place = base / "restic"
        self._cache = base / "restic-cache"
        self._run("init")

    def backup(self, tree: Path) -> None:
        """Take a snapshot."""
        self._run("backup", str(tree))

    def restore(self, target: Path) -> None:
        """Bring the last snapshot back."""
        self._run("restore", "latest", "--target", str(target))

    def _run(self, *words: str) -> None:
        environment = {
            **os.environ,
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_CACHE_DIR": str(self._cache),
        }
        subprocess.run(
            ["restic", "-r", str(self.place), "-q", *words],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )


def rclone(source: Path, target: Path) -> None:
    """Copy a tree with rclone, with its own defaults."""
    beside = Path(sys.executable).parent / "rclone"
    program = str(beside) if beside.exists() else "rclone"
    subprocess.run([program, "copy", "--links", str(source), str(target)], check=True)


def pack(tree: Path, archive: Path) -> None:
    """Make a compressed tar."""
    subprocess.run(["tar", "czf", archive, "-C", tree, "."], check=True)


def unpack(archive: Path, target: Path) -> None:
    """Bring a compressed tar back."""
    target.mkdir()
    subprocess.run(["tar", "xzf", archive, "-C", target], check=True)


def need() -> None:
    """Raise SystemExit where what is compared with is not installed."""
    missing = [name for name in ("restic", "tar") if shutil.which(name) is None]
    if missing:
        raise SystemExit(
            f"this benchmark compares with {' and '.join(missing)}: install that first"
        )
