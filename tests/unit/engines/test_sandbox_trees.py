"""Removing a tree that a stranger made."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from anyon.engines.sandbox_trees import remove_tree


def test_links_are_not_followed(tmp_path):
    """A link is removed, never what it shows."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a/link").symlink_to(outside)
    (tree / "link").symlink_to(outside / "kept")
    remove_tree(tree)
    assert not tree.exists()
    assert (outside / "kept").read_text() == "x"
    (tmp_path / "top").symlink_to(outside)
    remove_tree(tmp_path / "top")
    assert (outside / "kept").exists()
    assert not (tmp_path / "top").is_symlink()


def test_any_mode_any_name_any_kind(tmp_path):
    """Mode 000, names that are no text, fifos, and names like those used on the way."""
    tree = tmp_path / "tree"
    (tree / "work/work/deep").mkdir(parents=True)
    (tree / "work/work/deep/file").write_text("x")
    (tree / ".removing-1/.removing-2").mkdir(parents=True)
    (tree / ".removing-2").write_text("x")
    (tree / os.fsdecode(b"\xff\n\x1b")).mkdir()
    os.mkfifo(tree / "fifo")
    for name in ("work/work/deep", "work/work", "work"):
        (tree / name).chmod(0)
    remove_tree(tree)
    assert list(tmp_path.iterdir()) == []
    remove_tree(tree)


@pytest.fixture
def quick():
    """A directory in memory: a disk's own slowness is not what is tested."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as base:
        yield Path(base)


def test_a_tree_20000_deep(quick):
    """Depth is no matter; a recursive remover (the control) dies of it."""
    tree = quick / "tree"
    tree.mkdir()
    here = os.open(tree, os.O_RDONLY)
    for _ in range(20_000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    with pytest.raises(RecursionError):
        shutil.rmtree(tree)
    remove_tree(tree)
    assert not tree.exists()
