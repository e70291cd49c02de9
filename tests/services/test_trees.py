"""Trees that a stranger made."""

import contextlib
import os
import shutil
import sys
import threading
from pathlib import Path

import pytest

from anyon.domain.errors import InvalidInputError
from anyon.services import trees


def _deep(top: Path, depth: int) -> None:
    top.mkdir()
    where = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=where)
        below = os.open("d", os.O_RDONLY, dir_fd=where)
        os.close(where)
        where = below
    os.close(where)


def test_deep_trees_are_deleted(tmp_path: Path) -> None:
    """A tree too deep for the library's own way (the control, where that is still so) is deleted."""
    top = tmp_path / "deep"
    _deep(top, 1500)
    if sys.version_info < (3, 13):
        with pytest.raises((RecursionError, OSError)):
            shutil.rmtree(top)
    trees.delete(top)
    assert not top.exists()


def test_nothing_outside_is_deleted(tmp_path: Path) -> None:
    """Links are removed, not followed; closed directories and odd names are no obstacle; absent is success."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "link").symlink_to(outside)
    (top / "link").symlink_to(outside)
    os.mkfifo(top / "a" / "pipe")
    (top / ".anyon-x").mkdir()
    (top / f".anyon-{os.getpid()}-0" / "full").mkdir(parents=True)
    os.close(os.open(os.fsencode(top) + b"/a/b/\xff\n", os.O_CREAT | os.O_WRONLY))
    (top / "a").chmod(0)
    trees.delete(top)
    trees.delete(top)
    assert not top.exists()
    assert (outside / "precious").read_text() == "x"


def test_a_link_in_place_of_the_top_is_removed_itself(tmp_path: Path) -> None:
    """When the top is a link, the link goes and what it points to stays."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    trees.delete(tmp_path / "link")
    assert (tmp_path / "kept").is_dir()
    assert not (tmp_path / "link").is_symlink()


def test_copies_are_bounded_in_depth(tmp_path: Path) -> None:
    """A tree deeper than the limit is refused by name, with no file left open."""
    _deep(tmp_path / "deep", trees.DEPTH_LIMIT + 5)
    (tmp_path / "copy").mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(InvalidInputError) as caught:
        trees.copy_repository(tmp_path / "deep", tmp_path / "copy")
    assert caught.value.code == "tree_too_deep"
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    trees.delete(tmp_path / "deep")


def test_a_copy_never_follows_a_link(tmp_path: Path) -> None:
    """While a directory is swapped for a link again and again, nothing from behind the link is copied.

    The control, which follows links as an ordinary copy does, must leak: else the race is not run.
    """
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("leaked")
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_text("fine")
    (source / "link").symlink_to(secret)
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            (source / "sub").rename(source / "held")
            (source / "link").rename(source / "sub")
            (source / "sub").rename(source / "link")
            (source / "held").rename(source / "sub")

    swapper = threading.Thread(target=swap)
    swapper.start()
    leaks, control = 0, 0
    try:
        for number in range(2000):
            if leaks or (number >= 200 and control):
                break
            target = tmp_path / "target"
            target.mkdir()
            with contextlib.suppress(InvalidInputError):
                trees.copy_repository(source, target)
            read = (target / "sub" / "file", target / "held" / "file", target / "link" / "file")
            leaks += any(
                file.exists() and not file.parent.is_symlink() and file.read_text() == "leaked"
                for file in read
            )
            trees.delete(target)
            try:
                control += (source / "sub" / "file").read_text() == "leaked"
            except OSError:
                continue
    finally:
        over.set()
        swapper.join()
    assert leaks == 0
    assert control > 0
