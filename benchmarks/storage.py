"""Checkpoints against restic and tar, side by side in one run on the same tree.

``python benchmarks/storage.py [--json]``; the targets are those of the design.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anyon.clock import SystemClock
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.files import FilesStore

PROJECT = "user/project"
FILES = 28_000
ROUNDS = 5
CHANGED = 20
TARGETS = {
    "first": 1.0,
    "incremental": 0.2,
    "unchanged": 0.15,
    "restore": 0.7,
    "stored": 1.1,
}
"""At most this part of what restic takes."""
MAX_PAUSE_SECONDS = 0.05
MAX_MEMORY_BYTES = 150 << 20


def make_tree(root: Path, files: int) -> None:
    """Write something like a repository with its node_modules: about 7 KB a file."""
    source = random.Random(1)
    words = [bytes(source.choices(b"abcdefghijklmnopqrstuvwxyz_(){};=.", k=9)) for _ in range(3000)]
    for number in range(files):
        directory = root / f"m{number // 400}" / f"p{number // 8 % 50}"
        directory.mkdir(parents=True, exist_ok=True)
        size = int(source.expovariate(1 / 7300))
        text = b" ".join(source.choices(words, k=size // 10 + 1))
        (directory / f"file-{number}.js").write_bytes(text)


def change(root: Path, turn: int) -> None:
    """Edit some files."""
    for number in range(CHANGED):
        at = (turn * 997 + number * 1399) % FILES
        path = root / f"m{at // 400}" / f"p{at // 8 % 50}" / f"file-{at}.js"
        path.write_bytes(path.read_bytes() + b"// edited %d\n" % turn)


def size_of(root: Path) -> int:
    """Return the bytes of all files below *root*."""
    return sum(p.stat().st_size for p in root.rglob("*") if p.is_file())


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that *work* takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def restic(base: Path, *arguments: str) -> None:
    """Run restic on its own repository."""
    environment = {**os.environ, "RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": str(base / "rc")}
    command = ["restic", "-r", str(base / "restic"), "-q", *arguments]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def measure_restic(base: Path, tree: Path) -> dict[str, float]:
    """Return restic's seconds and stored bytes."""
    restic(base, "init")
    seen = {"first": timed(lambda: restic(base, "backup", str(tree)))}
    seen["stored"] = float(size_of(base / "restic"))
    seen["unchanged"] = timed(lambda: restic(base, "backup", str(tree)))
    incremental = []
    for turn in range(3):
        change(tree, 100 + turn)
        incremental.append(timed(lambda: restic(base, "backup", str(tree))))
    seen["incremental"] = statistics.median(incremental)
    seen["restore"] = timed(
        lambda: restic(base, "restore", "latest", "--target", str(base / "restic-back"))
    )
    shutil.rmtree(base / "restic-back")
    return seen


def measure_tar(base: Path, tree: Path) -> dict[str, float]:
    """Return the seconds of a compressed tar and back."""
    archive, back = base / "tree.tar.gz", base / "tar-back"
    back.mkdir()
    seen = {
        "first": timed(lambda: subprocess.run(["tar", "czf", archive, "-C", tree, "."], check=True))
    }
    seen["restore"] = timed(lambda: subprocess.run(["tar", "xzf", archive, "-C", back], check=True))
    shutil.rmtree(back)
    return seen


async def measure_anyon(base: Path, tree: Path) -> dict[str, float]:
    """Return Anyon's seconds, stored bytes, memory and pause."""
    made = Checkpoints(FilesStore(base / "store"), cache=base / "cache", clock=SystemClock())

    async def save(**more: Any) -> Any:
        return await made.save(PROJECT, {"workspace": tree}, **more)

    @asynccontextmanager
    async def freeze() -> AsyncIterator[None]:
        yield

    seen: dict[str, float] = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    await save()
    seen["first"] = time.perf_counter() - began
    seen["memory"] = float((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
    seen["stored"] = float(size_of(base / "store"))
    await asyncio.sleep(0.2)
    for name in ("unchanged", "incremental"):
        lengths = []
        for turn in range(ROUNDS):
            if name == "incremental":
                change(tree, turn)
            began = time.perf_counter()
            await save()
            lengths.append(time.perf_counter() - began)
        seen[name] = statistics.median(lengths)
    pauses = []
    for turn in range(ROUNDS):
        change(tree, 50 + turn)
        pauses.append((await save(freeze=freeze)).pause_seconds)
    seen["pause"] = max(pauses)
    began = time.perf_counter()
    await made.restore(PROJECT, None, {"workspace": base / "back"})
    seen["restore"] = time.perf_counter() - began
    await made.close()
    return seen


def run(json: bool = False, files: int = FILES) -> dict[str, Any]:  # noqa: ARG001 - every benchmark's form
    """Measure all three; return the numbers, the ratios to restic, and what misses its target."""
    base = Path(tempfile.mkdtemp(prefix="anyon-bench-"))
    try:
        tree = base / "tree"
        make_tree(tree, files)
        found: dict[str, Any] = {"files": files, "bytes": size_of(tree)}
        os.sync()
        found["anyon"] = asyncio.run(measure_anyon(base, tree))
        os.sync()
        found["tar"] = measure_tar(base, tree)
        if shutil.which("restic"):
            os.sync()
            found["restic"] = measure_restic(base, tree)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    if "restic" in found:
        found["ratios"] = {n: found["anyon"][n] / found["restic"][n] for n in TARGETS}
        found["misses"] = [n for n, most in TARGETS.items() if found["ratios"][n] > most]
        if found["anyon"]["pause"] > MAX_PAUSE_SECONDS:
            found["misses"].append("pause")
        if found["anyon"]["memory"] > MAX_MEMORY_BYTES:
            found["misses"].append("memory")
    return found


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--files", type=int, default=FILES)
    options = parser.parse_args()
    found = run(options.json, options.files)
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        shown = {k: round(v, 3) for k, v in value.items()} if isinstance(value, dict) else value
        print(f"{name:8} {shown}")


if __name__ == "__main__":
    main()
