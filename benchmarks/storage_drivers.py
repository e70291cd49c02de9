"""Work on a project's files by storage driver: ext4, ext4 with checkpoints, gcsfuse, rclone; the mounts over a local emulator.

The tree has ANYON_BENCH_FILES source files (400 unless set: with thousands the mounts take minutes) and npm
installs 8 local packages of 25 files; medians of five, each in a directory of its own. A checkpoint's row is the work and a save of it confirmed in the same emulator,
since on a mount the work ends up in the bucket too. An emulator on the same machine answers in under a millisecond;
a real bucket does in tens: on a mount each file pays that, so there the ratios are lower bounds.
"""

import asyncio
import os
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from anyon.clock import SystemClock
from anyon.domain.errors import AnyonError
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.gcs import GcsStore
from anyon.storage.mounts.gcsfuse import Gcsfuse
from anyon.storage.mounts.mounter import Mounter
from anyon.storage.mounts.rclone import Rclone
from anyon.testing.gcs_emulator import make_bucket, running
from anyon.testing.mount_trials import BUCKET, mount_trial
from benchmarks.report import QUICK, Row, rounds

SERVICES = ("rivals", "gcsfuse")
ROOT = Path(__file__).parents[1]
ROUNDS = rounds(5)
FILES = int(os.environ.get("ANYON_BENCH_FILES", "40" if QUICK in os.environ else "400"))
LIMIT_SECONDS = 900.0
_GIT = {
    "GIT_AUTHOR_NAME": "b", "GIT_AUTHOR_EMAIL": "b@b",
    "GIT_COMMITTER_NAME": "b", "GIT_COMMITTER_EMAIL": "b@b", "GIT_CONFIG_GLOBAL": "/dev/null",
}  # fmt: skip
_MOUNTED = (
    "core.fileMode=false",
    "core.checkStat=minimal",
    "core.createObject=rename",
    "gc.auto=0",
)
Times = Mapping[str, float]


def run() -> list[Row]:
    """Measure each driver on its own directory, one after the other."""
    with tempfile.TemporaryDirectory(prefix="anyon-bench-") as scratch:
        place = Path(scratch)
        source = _source(place / "source")
        packages = _packages(place / "packages")
        local = _medians(
            _work(place / f"ext4-{turn}", source, packages, is_mounted=False)
            for turn in range(ROUNDS)
        )
        found = {"checkpoints": _with_checkpoints(place, source, packages)}
        for name, mounter in _mounters().items():
            with mount_trial(mounter, place / name, profile="tuned") as trial:
                asyncio.run(trial.mounter.mount(trial.spec))
                work = trial.spec.place
                found[name] = _medians(
                    _work(work / f"project-{turn}", source, packages, is_mounted=True)
                    for turn in range(ROUNDS)
                )
    return [
        Row(
            what=f"{name}: {what}",
            value=seconds,
            unit="s",
            reference="ext4",
            reference_value=max(local[what], 0.001),
            target_ratio=None,
        )
        for name, times in found.items()
        for what, seconds in times.items()
    ]


def _medians(turns: Iterable[Times]) -> Times:
    """Return the median of each part over all turns."""
    several = list(turns)
    return {what: statistics.median(one[what] for one in several) for what in several[0]}


def _mounters() -> Mapping[str, Mounter]:
    """Return the mounters whose programs are there; the others are left out, and that is said."""
    built = sorted((ROOT / ".cache/services/gcsfuse").glob("v*/gcsfuse"))
    beside = ROOT / ".venv/bin/rclone"
    known: dict[str, Mounter] = {
        "gcsfuse": Gcsfuse(str(built[-1]) if built else "gcsfuse"),
        "rclone": Rclone(str(beside) if beside.exists() else "rclone"),
    }
    found = {}
    for name, mounter in known.items():
        try:
            mounter.check()
        except AnyonError as error:
            print(f"{name} is left out: {error.message}")
        else:
            found[name] = mounter
    return found


def _source(place: Path) -> Path:
    """Make the repository that is cloned."""
    for number in range(FILES):
        path = place / f"src/part-{number % 20}/file-{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {number}\n" * 60)
    _run("git", "init", "-q", "-b", "main", str(place))
    _run("git", "-C", str(place), "add", "-A")
    _run("git", "-C", str(place), "commit", "-qm", "all")
    return place


def _packages(place: Path) -> Path:
    """Make the packages that npm installs, as archives: nothing is asked of a registry."""
    names = [f"part{number}" for number in range(8)]
    for name in names:
        folder = place / name / "package"
        folder.mkdir(parents=True)
        (folder / "package.json").write_text(f'{{"name": "{name}", "version": "1.0.0"}}')
        for number in range(25):
            (folder / f"file-{number}.js").write_text(f"module.exports = {number};\n" * 20)
        with tarfile.open(place / f"{name}.tgz", "w:gz") as archive:
            archive.add(folder, "package")
    wanted = ", ".join(f'"{name}": "file:{place}/{name}.tgz"' for name in names)
    (place / "package.json").write_text(f'{{"name": "x", "dependencies": {{{wanted}}}}}')
    return place


def _work(
    place: Path,
    source: Path,
    packages: Path,
    *,
    is_mounted: bool,
    then: Callable[[], object] = lambda: None,
) -> Times:
    """Do the work in *place* and return how long each part took, *then* included."""
    settings = [word for pair in _MOUNTED for word in ("-c", pair)] if is_mounted else []
    git = ["git", *settings]
    tree = [*git, "-C", str(place)]
    found: dict[str, float] = {}

    def timed(what: str, *argv: str) -> None:
        began = time.monotonic()
        _run(*argv)
        then()
        found[what] = time.monotonic() - began

    timed("git clone", *git, "clone", "-q", "--no-hardlinks", str(source), str(place))
    timed("git worktree add", *tree, "worktree", "add", "-q", ".worktrees/one", "-b", "one")
    timed("git status (first)", *tree, "status", "--short")
    timed("git status (warm)", *tree, "status", "--short")
    shutil.copy(packages / "package.json", place / "package.json")
    npm = ("npm", "install", "--offline", "--no-audit", "--no-fund", "--ignore-scripts")
    timed("npm install", *npm, "--prefix", str(place))
    timed("read all", "sh", "-c", 'find "$0" -type f -exec cat {} + >/dev/null', str(place))
    return found


def _with_checkpoints(place: Path, source: Path, packages: Path) -> Times:
    """Do the work on the local disk, with a save confirmed in the bucket after each part."""
    with running() as emulator, _environment(STORAGE_EMULATOR_HOST=emulator.url):
        make_bucket(emulator.url, BUCKET)
        loop = asyncio.new_event_loop()
        checkpoints = Checkpoints(GcsStore(BUCKET), cache=place / "cache", clock=SystemClock())

        def save(work: Path) -> None:
            trees = {"workspace": work}
            loop.run_until_complete(
                checkpoints.save(f"u/{work.name}", trees, reason="asked", epoch=0, records=b"")
            )

        try:
            turns = []
            for turn in range(ROUNDS):
                work = place / f"saved-{turn}"
                turns.append(
                    _work(work, source, packages, is_mounted=False, then=partial(save, work))
                )
            return _medians(turns)
        finally:
            loop.run_until_complete(checkpoints.close())
            loop.close()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    former = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(former)


def _run(*argv: str) -> None:
    subprocess.run(
        argv, env={**os.environ, **_GIT}, check=True, capture_output=True, timeout=LIMIT_SECONDS
    )
