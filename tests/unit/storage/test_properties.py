# Names are bytes here, which pathlib does not take.
# ruff: noqa: PTH101, PTH103, PTH108, PTH211
"""Random trees and edits: every checkpoint of a line restores to the tree as it was, byte for byte.

``ANYON_PROPERTY_EXAMPLES`` says how many lines are tried (25 if not said).
"""

import asyncio
import contextlib
import json
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyon.clock import SystemClock
from anyon.storage import contents
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.folders import OPEN_FOLDER, remove_tree
from anyon.storage.packs import CHUNK_BYTES
from anyon.storage.uploads import Uploads
from anyon.testing.trees import Described, describe

PROJECT = "user/project"
EXAMPLES = int(os.environ.get("ANYON_PROPERTY_EXAMPLES", "25"))

# Few names, so that edits meet; none that git would make and so is left out.
NAMES = st.one_of(
    st.sampled_from([b"a", b"b", b"\xff\xfe", b"line\nbreak", "한글".encode(), b"n" * 255, b".git"]),
    st.binary(min_size=1, max_size=6).filter(
        lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."}
    ).filter(lambda name: not name.endswith(b".lock") and b"tmp" not in name),
)  # fmt: skip
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
TIMES = st.integers(min_value=0, max_value=4_000_000_000_000_000_000)
SIZES = st.sampled_from([0, 1, 4096, 5000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1])
EDIT = st.one_of(
    st.tuples(st.just("write"), PATHS, st.binary(max_size=40)),
    st.tuples(st.just("grow"), PATHS, SIZES),
    st.tuples(st.just("append"), PATHS, st.binary(max_size=40)),
    st.tuples(st.just("sparse"), PATHS, st.integers(min_value=0, max_value=6_000_000)),
    st.tuples(st.just("directory"), PATHS, st.none()),
    st.tuples(st.just("symlink"), PATHS, PATHS),
    st.tuples(st.just("hard"), PATHS, PATHS),
    st.tuples(st.just("rename"), PATHS, PATHS),
    st.tuples(st.just("remove"), PATHS, st.none()),
    st.tuples(st.just("mode"), PATHS, st.integers(min_value=0, max_value=0o7777)),
    st.tuples(st.just("time"), PATHS, TIMES),
    st.tuples(st.just("owner"), PATHS, st.integers(min_value=0, max_value=70_000)),
    st.tuples(st.just("attribute"), PATHS, st.binary(max_size=30)),
    st.tuples(st.just("fifo"), PATHS, st.none()),
)
ROUND = st.tuples(
    st.lists(EDIT, max_size=14), st.sampled_from(["plain", "frozen", "forgotten", "based"])
)


def edit(root: bytes, what: str, path: bytes, more: Any) -> None:
    """Do one edit, if the tree allows it; *more* is a path for those that have two."""
    here = root + b"/" + path
    if what in {"hard", "rename"}:
        more = root + b"/" + more
    with contextlib.suppress(OSError):
        DONE_BY[what](here, more)


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK, 0o666)  # a FIFO waits for nobody


def _written(here: bytes, data: bytes, mode: str = "wb") -> None:
    with open(here, mode, opener=_opener) as file:
        file.write(data)


def _sparse(here: bytes, offset: int) -> None:
    with open(here, "wb", opener=_opener) as file:
        file.truncate(6_000_001)
        file.seek(offset)
        file.write(b"x")


def _removed(here: bytes, _: None) -> None:
    if stat.S_ISDIR(os.lstat(here).st_mode):
        remove_tree(here)
    else:
        os.unlink(here)


def _moded(here: bytes, mode: int) -> None:
    if not stat.S_ISLNK(os.lstat(here).st_mode):
        os.chmod(here, mode)


DONE_BY: dict[str, Callable[[bytes, Any], object]] = {
    "write": _written,
    "append": lambda here, data: _written(here, data, "ab"),
    "grow": lambda here, size: _written(here, (here[-7:] * (size // 7 + 1))[:size]),
    "sparse": _sparse,
    "directory": lambda here, _: os.makedirs(here),
    "symlink": lambda here, target: os.symlink(target, here),
    "hard": lambda here, other: os.link(here, other, follow_symlinks=False),
    "rename": os.rename,
    "remove": _removed,
    "mode": _moded,
    "time": lambda here, time: os.utime(here, ns=(0, time), follow_symlinks=False),
    "owner": lambda here, owner: os.chown(here, owner, owner, follow_symlinks=False),
    "attribute": lambda here, value: os.setxattr(here, "user.note", value, follow_symlinks=False),
    "fifo": lambda here, _: os.mkfifo(here),
}


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    """Stand for a pause of a project in which nothing runs."""
    yield


@pytest.mark.timeout(120 + EXAMPLES)
@pytest.mark.skipif(os.geteuid() != 0, reason="owners and closed files are root's")
@settings(max_examples=EXAMPLES, deadline=None)
@given(rounds=st.lists(ROUND, min_size=1, max_size=4))
def test_every_checkpoint_of_a_line_comes_back(
    rounds: list[tuple[list[tuple[str, bytes, object]], str]],
) -> None:
    """Restored when all is over, each is the tree of its moment: modes, owners, times, links, holes, attributes."""
    base = Path(tempfile.mkdtemp())
    try:
        asyncio.run(_line(base, rounds))
    finally:
        remove_tree(bytes(base))


async def _line(base: Path, rounds: list[tuple[list[tuple[str, bytes, object]], str]]) -> None:
    (base / "tree").mkdir()
    store, number = MemoryStore(), 0
    taken: list[tuple[str, Described, int]] = []
    checkpoints = Checkpoints(store, cache=base / "cache", clock=SystemClock())
    for edits, how in rounds:
        for one in edits:
            edit(bytes(base / "tree"), *one)
        if how == "forgotten":  # as on another machine: nothing of the last is known
            number += 1
            await checkpoints.close()
            checkpoints = Checkpoints(store, cache=base / f"cache-{number}", clock=SystemClock())
        saved = await checkpoints.save(
            PROJECT,
            {"workspace": base / "tree"},
            freeze=nothing if how == "frozen" else None,
            bases={"workspace": {"engine": "some"}} if how == "based" else None,
        )
        tree = describe(base / "tree")
        key = f"{PROJECT}/checkpoints/{saved.checkpoint.id}"
        record = json.loads(store.get(key).data.split(b"\n")[1])
        assert record["format"] == (2 if how == "based" else 1)
        taken.append((saved.checkpoint.id, tree, _blocks(base / "tree")))
    for turn, (checkpoint, tree, blocks) in enumerate(taken):
        back = base / f"back-{turn}"
        await checkpoints.restore(PROJECT, checkpoint, {"workspace": back})
        assert describe(back) == tree
        assert _blocks(back) <= blocks + 4096
        assert (await checkpoints.verify(PROJECT, checkpoint, read_data=True)).is_whole
    await checkpoints.close()


def _blocks(root: Path) -> int:
    """Return how many blocks of disk the files of a tree take: holes take none."""
    found = 0
    for directory, _folders, files in os.walk(bytes(root)):
        for name in files:
            st = os.lstat(directory + b"/" + name)
            found += st.st_blocks if stat.S_ISREG(st.st_mode) else 0
    return found


def test_a_link_that_is_none_any_more_is_as_good_as_gone(tmp_path: Path) -> None:
    """What was a link when it was listed may be a file by now: that ends no save."""
    (tmp_path / "name").symlink_to("target")
    seen = os.lstat(tmp_path / "name")
    (tmp_path / "name").unlink()
    (tmp_path / "name").write_text("a file")
    fd = os.open(tmp_path, OPEN_FOLDER)
    try:
        with pytest.raises(FileNotFoundError):
            contents.capture(fd, b"name", seen, _no_uploads())
    finally:
        os.close(fd)


def _no_uploads() -> Uploads:
    """Return uploads that are never asked for: a link has none."""
    return Uploads.__new__(Uploads)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sets an overlay's own attributes")
def test_which_attributes_belong_to_content(tmp_path: Path) -> None:
    """Users' own, rights, and what an overlay shows; not what it notes of files on this machine."""
    (tmp_path / "d").mkdir()
    kept = (
        "user.mine",
        "user.overlay.opaque",
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
    )
    noted = ("origin", "impure", "uuid", "nlink", "upper")
    for name in (*kept, *(f"trusted.overlay.{name}" for name in noted), "user.overlay.origin"):
        os.setxattr(tmp_path / "d", name, b"y")
    fd = os.open(tmp_path / "d", OPEN_FOLDER)
    try:
        assert {name for name, _ in contents.xattrs(fd)} == set(kept)
    finally:
        os.close(fd)
