"""A repository that is committed to and collected while it is captured comes back sound."""

import asyncio
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from anyon.clock import SystemClock
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.folders import remove_tree

PROJECT = "user/project"
ROUNDS = 20


def git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "gc.auto=0", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )


def fsck(root: Path) -> str:
    """Return what git finds wrong with a repository; empty if it is sound."""
    found = git(root, "fsck", "--full", "--strict", "--no-dangling")
    return found.stderr + found.stdout if found.returncode else ""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    for number in range(60):
        (root / f"file-{number}").write_text(str(number) * 200)
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    git(root, "branch", "other")
    return root


@contextmanager
def worked_on(root: Path) -> Iterator[None]:
    """Commit, branch, pack and collect in *root* without a pause."""
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            (root / f"file-{number % 60}").write_text(f"{number} " * 300)
            git(root, "commit", "-qam", str(number))
            if number % 3 == 0:
                git(root, "branch", "-f", f"topic-{number % 5}")
            if number % 4 == 0:
                git(root, "repack", "-adq")
                git(root, "pack-refs", "--all")
            if number % 7 == 0:
                git(root, "gc", "-q")

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()


async def test_live_repositories_come_back_sound(repository: Path, tmp_path: Path) -> None:
    """20 checkpoints of a repository at full work each restore to one that `git fsck` approves."""
    made = Checkpoints(MemoryStore(), cache=tmp_path / "cache", clock=SystemClock())
    heads = set()
    with worked_on(repository):
        for turn in range(ROUNDS):
            await made.save(PROJECT, {"workspace": repository})
            back = tmp_path / f"back-{turn}"
            await made.restore(PROJECT, None, {"workspace": back})
            assert await asyncio.to_thread(fsck, back) == ""
            heads.add(git(back, "rev-parse", "HEAD").stdout)
            assert not list((back / ".git").rglob("*.lock"))
            remove_tree(bytes(back))
    assert len(heads) > 2  # the repository did move meanwhile
    await made.close()


def test_a_copy_in_the_wrong_order_does_not(repository: Path, tmp_path: Path) -> None:
    """The check is not blind: objects first and refs last gives a repository that is broken."""
    broken = 0
    with worked_on(repository):
        for turn in range(ROUNDS * 3):
            back = tmp_path / f"naive-{turn}"
            (back / ".git").mkdir(parents=True)
            for name in ("objects", "refs"):
                subprocess.run(
                    ["cp", "-a", repository / ".git" / name, back / ".git"],
                    check=False,
                    capture_output=True,
                )
                if name == "objects":
                    before = git(repository, "rev-parse", "HEAD").stdout
                    while git(repository, "rev-parse", "HEAD").stdout == before:
                        pass  # as long as a big repository's copy would take
            for name in ("HEAD", "packed-refs", "config", "index"):
                if (repository / ".git" / name).exists():
                    shutil.copy2(repository / ".git" / name, back / ".git" / name)
            broken += fsck(back) != ""
            shutil.rmtree(back)
            if broken:
                break
    assert broken > 0
