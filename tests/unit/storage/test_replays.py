# Names are bytes here, which pathlib does not take.
# ruff: noqa: PTH101, PTH102, PTH123, PTH211
"""A saved layer is put into a container as it was, and nothing outside of it is touched."""

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyon.storage.folders import remove_tree
from anyon.storage.replays import Item, Kind, plan, replay
from anyon.testing.trees import Described, describe, make_deep, make_hostile

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers are root's")
Tree = dict[bytes, Any]
"""Names of a pure tree: a kind, or what is inside."""


def item(tree: Tree | Kind | int) -> Item:
    """Return the listing of a tree; a number is a file with several names."""
    if isinstance(tree, Kind):
        return Item(tree)
    if isinstance(tree, int):
        return Item(Kind.FILE, tree)
    return Item(Kind.DIRECTORY, 0, {name: item(inside) for name, inside in tree.items()})


def path(folder: Any, name: bytes = b"") -> bytes:
    """Return a planned path."""
    return b"/".join(part for part in (folder.path(), name) if part)


@pytest.mark.parametrize(
    ("wanted", "present", "removed", "made", "written", "linked"),
    [
        # A new container is empty but for the places of its mounts, which stay.
        ({b"a": Kind.FILE}, {b"workspace": {}}, [], [], [b"a"], []),
        ({b"d": {b"f": Kind.FILE}}, {}, [], [b"d"], [b"d/f"], []),
        # Two directories are one; anything else is replaced.
        ({b"d": {b"f": Kind.FILE}}, {b"d": {b"g": Kind.FILE}}, [], [], [b"d/f"], []),
        ({b"d": {b"f": Kind.FILE}}, {b"d": Kind.SYMLINK}, [b"d"], [b"d"], [b"d/f"], []),
        ({b"d": {b"f": Kind.FILE}}, {b"d": Kind.WHITEOUT}, [b"d"], [b"d"], [b"d/f"], []),
        ({b"f": Kind.FILE}, {b"f": Kind.FILE}, [b"f"], [], [b"f"], []),
        ({b"f": Kind.FILE}, {b"f": Kind.OTHER}, [b"f"], [], [b"f"], []),
        # A directory that gives way goes with all that is in it, leaves first.
        (
            {b"d": Kind.WHITEOUT},
            {b"d": {b"e": {b"f": Kind.FILE}}},
            [b"d/e/f", b"d/e", b"d"], [], [b"d"], [],
        ),
        # Names of one file are one file again.
        ({b"a": 7, b"b": {b"c": 7}}, {}, [], [b"b"], [b"a"], [(b"b/c", b"a")]),
        # What is no file is never put into a container, and nothing gives way to it.
        ({b"x": Kind.OTHER}, {}, [], [], [], []),
        ({b"x": Kind.OTHER}, {b"x": Kind.FILE}, [], [], [], []),
    ],
)  # fmt: skip
def test_what_is_decided(  # noqa: PLR0917 - a table's columns
    wanted: Tree,
    present: Tree,
    removed: list[bytes],
    made: list[bytes],
    written: list[bytes],
    linked: list[tuple[bytes, bytes]],
) -> None:
    """The table of what a layer becomes, and in which order."""
    what = plan(item(wanted), item(present))
    assert [path(folder, name) for folder, name, _ in what.removed] == removed
    assert [path(folder) for folder in what.made] == made
    assert [path(folder, name) for folder, name, _ in what.written] == written
    assert [(path(a, b), path(c, d)) for a, b, c, d in what.linked] == linked
    assert path(what.dressed[-1]) == b""


def saved_layer(root: Path) -> None:
    """Make a layer with rights, marks and links."""
    make_hostile(root)
    for name in ("fifo", "socket"):  # these are in no checkpoint
        (root / name).unlink()
    (root / "su").write_bytes(b"program")
    os.chown(root / "su", 3, 42)
    (root / "su").chmod(0o6755)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(root / "su", "security.capability", capability)
    os.mknod(root / "gone", stat.S_IFCHR, os.makedev(0, 0))
    os.setxattr(root / "empty", "trusted.overlay.opaque", b"y")
    os.chown(root / "up", 7, 8, follow_symlinks=False)


def test_a_layer_comes_back_as_it_was(tmp_path: Path) -> None:
    """Owners, setuid bits, capabilities, marks, holes, hard links and times: all as saved."""
    saved_layer(tmp_path / "saved")
    (tmp_path / "layer/workspace").mkdir(parents=True)
    done = replay(bytes(tmp_path / "saved"), bytes(tmp_path / "layer"))
    wanted = describe(tmp_path / "saved")
    found = describe(tmp_path / "layer")
    assert found.pop(b"/workspace")
    assert found == wanted
    assert os.lstat(tmp_path / "layer/sparse").st_blocks * 512 < 1 << 20
    assert (done.deletions, done.notes) == (1, [])


def test_a_repeat_changes_nothing(tmp_path: Path) -> None:
    """What was cut off anywhere may be done again: the layer is the same after it."""
    saved_layer(tmp_path / "saved")
    (tmp_path / "layer").mkdir()
    for _ in range(2):
        replay(bytes(tmp_path / "saved"), bytes(tmp_path / "layer"))
        assert describe(tmp_path / "layer") == describe(tmp_path / "saved")


def planted(base: Path) -> None:
    """Make a layer that leads outside by its links, and what lies there."""
    (base / "saved/etc").mkdir(parents=True)
    (base / "saved/etc/passwd").write_text("from the checkpoint")
    (base / "saved/file").write_text("from the checkpoint")
    (base / "host").mkdir()
    (base / "host/passwd").write_text("the host's")
    (base / "layer").mkdir()
    (base / "layer/etc").symlink_to(base / "host")
    (base / "layer/file").symlink_to(base / "host/passwd")


def test_no_link_leads_outside(tmp_path: Path) -> None:
    """Links that stand in the way, of directories and of files, are replaced and never followed."""
    planted(tmp_path)
    replay(bytes(tmp_path / "saved"), bytes(tmp_path / "layer"))
    assert (tmp_path / "host/passwd").read_text() == "the host's"
    assert not (tmp_path / "layer/etc").is_symlink()
    assert describe(tmp_path / "layer") == describe(tmp_path / "saved")


def test_a_plain_copy_is_led_outside(tmp_path: Path) -> None:
    """The control: a copy by names writes the host's file through the same links."""
    planted(tmp_path)
    shutil.copytree(tmp_path / "saved", tmp_path / "layer", symlinks=True, dirs_exist_ok=True)
    assert (tmp_path / "host/passwd").read_text() == "from the checkpoint"


def test_a_layer_deeper_than_any_path(tmp_path: Path) -> None:
    """Thousands of directories, one in the other, are put in without recursion."""
    make_deep(tmp_path / "saved", 3_000)
    (tmp_path / "layer").mkdir()
    done = replay(bytes(tmp_path / "saved"), bytes(tmp_path / "layer"))
    assert (done.directories, done.files) == (3_000, 1)
    for name in ("saved", "layer"):
        remove_tree(bytes(tmp_path / name))


NAMES = st.sampled_from([b"a", b"b", b"\xff", b"workspace", b"x y"])
TREES = st.recursive(
    st.sampled_from(["file", "big", "link", "mark", "fifo", "hard"]),
    lambda inner: st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=14,
)


def is_file(name: bytes) -> bool:
    """Say whether there is a file of this name, and no link."""
    try:
        return stat.S_ISREG(os.lstat(name).st_mode)
    except FileNotFoundError:
        return False


def make(root: bytes, tree: dict[bytes, Any] | str, number: list[int]) -> None:
    """Make a tree on disk; every file is different."""
    number[0] += 1
    match tree:
        case dict():
            os.mkdir(root)
            for name, inside in tree.items():
                make(root + b"/" + name, inside, number)
            os.chmod(root, 0o700 + number[0] % 64)
        case "link":
            os.symlink(b"../" * 20 + b"etc", root)
        case "mark":
            os.mknod(root, stat.S_IFCHR, 0)
        case "fifo":
            os.mkfifo(root)
        case "hard" if is_file(first := root.rpartition(b"/")[0] + b"/a"):
            os.link(first, root, follow_symlinks=False)
        case _:
            with open(root, "wb") as file:
                file.write(b"%d" % number[0] * (5000 if tree == "big" else 1))
            os.chmod(root, 0o4000 + number[0] % 512)


def without(rows: Described) -> Described:
    """Leave out the one attribute that says which other file has the same inode by a kept name."""
    return {name: row[:6] for name, row in rows.items()}


@settings(max_examples=80, deadline=None)
@given(
    wanted=st.dictionaries(NAMES, TREES, max_size=4),
    present=st.dictionaries(NAMES, TREES, max_size=4),
)
def test_any_layer_over_any_other(wanted: Tree, present: Tree) -> None:
    """Whatever is in the way: all that is wanted is there after, and only what it does not name stays."""
    base = Path(tempfile.mkdtemp())
    try:
        make(bytes(base / "saved"), wanted, [0])
        make(bytes(base / "layer"), present, [1000])
        before = describe(base / "layer")
        replay(bytes(base / "saved"), bytes(base / "layer"))
        new, after = describe(base / "saved"), describe(base / "layer")
        assert without({n: after[n] for n in new if n in after}) == without(new)
        assert new.keys() <= after.keys()
        # A directory keeps what the saved one does not name, and there is nothing of any other source.
        for name in after.keys() - new.keys():
            assert after[name][:6] == before[name][:6]
    finally:
        remove_tree(bytes(base))
