# Names are bytes here, which pathlib does not take.
# ruff: noqa: PTH101, PTH103, PTH104, PTH108, PTH112, PTH114, PTH211
"""The format is what its page says, and trees of every shape survive it."""

import asyncio
import importlib.util
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyon.clock import SystemClock
from anyon.storage import trees
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.folders import remove_tree
from anyon.storage.objects import DamagedError
from anyon.storage.retention import Retention, kept
from anyon.testing.trees import describe, make_hostile

PROJECT = "user/project"
_spec = importlib.util.spec_from_file_location(
    "independent_reader", Path(__file__).with_name("independent_reader.py")
)
assert _spec is not None
assert _spec.loader is not None
independent_reader = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(independent_reader)


async def test_an_independent_reader_gets_everything_back(tmp_path: Path) -> None:
    """A program written from the format's page alone restores a hostile tree byte for byte."""
    make_hostile(tmp_path / "tree")
    store = MemoryStore()
    checkpoints = Checkpoints(store, cache=tmp_path / "cache", clock=SystemClock())
    await checkpoints.save(PROJECT, {"workspace": tmp_path / "tree"})
    (tmp_path / "tree/exact").write_bytes(b"changed")
    await checkpoints.save(PROJECT, {"workspace": tmp_path / "tree"})
    await checkpoints.close()
    objects = {info.key: store.get(info.key).data for info in store.list("")}
    independent_reader.extract(objects, PROJECT, "workspace", tmp_path / "back")
    assert describe(tmp_path / "back") == describe(tmp_path / "tree")
    lines = Path(independent_reader.__file__).read_text().splitlines()
    assert len(lines) < 150
    assert not any(line.startswith(("from anyon", "import anyon")) for line in lines)


async def test_an_independent_reader_reads_a_fork_whose_source_is_gone(tmp_path: Path) -> None:
    """The page tells the second format too: packs of another project, under that project's key."""
    make_hostile(tmp_path / "tree")
    store = MemoryStore()
    checkpoints = Checkpoints(store, cache=tmp_path / "cache", clock=SystemClock())
    saved = await checkpoints.save(PROJECT, {"workspace": tmp_path / "tree"})
    await checkpoints.fork(PROJECT, saved.checkpoint.id, "user/fork", rows=b"rows")
    await checkpoints.delete(PROJECT)
    (tmp_path / "tree/exact").write_bytes(b"changed")
    await checkpoints.save("user/fork", {"workspace": tmp_path / "tree"})
    await checkpoints.close()
    objects = {info.key: store.get(info.key).data for info in store.list("")}
    independent_reader.extract(objects, "user/fork", "workspace", tmp_path / "back")
    assert describe(tmp_path / "back") == describe(tmp_path / "tree")


NAMES = st.sampled_from(
    [b"a", b"b", b"c.lock", b"\xff", b"x y", b"HEAD", b"objects", b"refs", b".git"]
)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["write", "mkdir", "link", "remove", "hard", "chmod", "rename"]),
        st.lists(NAMES, min_size=1, max_size=3),
        st.lists(NAMES, min_size=1, max_size=2),
        st.binary(max_size=20),
    ),
    max_size=12,
)


def edit(root: bytes, what: str, first: list[bytes], second: list[bytes], data: bytes) -> None:
    """Do one edit, if the tree allows it."""
    here, there = root + b"/" + b"/".join(first), root + b"/" + b"/".join(second)
    try:
        match what:
            case "write":
                Path(os.fsdecode(here)).write_bytes(data * 1000)
            case "mkdir":
                os.makedirs(here)
            case "link":
                os.symlink(data.replace(b"\0", b"") or b"x", here)
            case "remove" if os.path.isdir(here) and not os.path.islink(here):
                remove_tree(here)
            case "remove":
                os.unlink(here)
            case "hard":
                os.link(there, here, follow_symlinks=False)
            case "chmod":
                os.chmod(here, 0o700 | (data[0] if data else 0))
            case "rename":
                os.rename(here, there)
    except OSError:
        pass  # there is nothing there, or something else


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rounds=st.lists(EDITS, min_size=1, max_size=3))
def test_random_trees_and_edits(tmp_path_factory: pytest.TempPathFactory, rounds: list) -> None:
    """After any edits the checkpoint equals the tree: an incremental one as much as a first."""
    base = tmp_path_factory.mktemp("random")
    root = base / "tree"
    root.mkdir()

    async def run() -> None:
        checkpoints = Checkpoints(MemoryStore(), cache=base / "cache", clock=SystemClock())
        for number, edits in enumerate(rounds):
            for one in edits:
                edit(bytes(root), *one)
            await checkpoints.save(PROJECT, {"workspace": root})
            await checkpoints.restore(PROJECT, None, {"workspace": base / str(number)})
            left_out = {p for p in describe(root) if b".lock" in p}
            wanted = {p: d for p, d in describe(root).items() if p not in left_out}
            found = {p: d for p, d in describe(base / str(number)).items() if p not in left_out}
            # A file is left out for its name only where git would make it: the first name of
            # a group of hard links may be such a one.
            assert found.keys() == wanted.keys()
            assert {p: d[:6] for p, d in found.items()} == {p: d[:6] for p, d in wanted.items()}
        await checkpoints.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "node",
    [
        b"",
        b"{}",
        b'{"format":2,"files":[],"directories":[]}',
        b'{"format":1,"files":[{"name":"..","type":"symlink","target":"x"}],"directories":[]}',
        b'{"format":1,"files":[{"name":"a/b","type":"symlink","target":"x"}],"directories":[]}',
        b'{"format":1,"files":[{"name":"","type":"symlink","target":"x"}],"directories":[]}',
        b'{"format":1,"files":[{"name":"a","type":"symlink","target":"x"}],'
        b'"directories":[{"name":"a","type":"directory","node":"' + b"0" * 64 + b'"}]}',
        b'{"format":1,"files":[{"name":"a","type":"file","size":1,"chunks":["../x"]}],"directories":[]}',
        b'{"format":1,"files":[{"name":"a","type":"file","size":-1,"chunks":["'
        + b"0" * 64
        + b'"]}],"directories":[]}',
        b'{"format":1,"files":[{"name":"a","type":"device"}],"directories":[]}',
        b'{"format":1,"files":[{"name":"a","type":"file","size":5,"extents":[[-1,"'
        + b"0" * 64
        + b'"]]}],"directories":[]}',
    ],
)
def test_a_forged_node_is_refused(node: bytes) -> None:
    """A node that would lead a restore astray is damage: bad names, doubles, odd offsets."""
    with pytest.raises(DamagedError):
        trees.parse_node(node)


def test_retention() -> None:
    """All of a day, then one an hour, a day, a month; the newest always; nothing after a year."""
    now = datetime(2030, 6, 15, 12, tzinfo=UTC)
    times = [(f"{n:05}", now - timedelta(minutes=20 * n)) for n in range(3 * 24 * 400)]
    chosen = kept(times, Retention(), now=now)
    ages = sorted(now - at for name, at in times if name in chosen)
    assert sum(age <= timedelta(hours=24) for age in ages) == 73
    assert sum(timedelta(hours=24) < age <= timedelta(days=7) for age in ages) == 144
    assert sum(timedelta(days=7) < age <= timedelta(days=30) for age in ages) in {23, 24}
    assert sum(timedelta(days=30) < age <= timedelta(days=366) for age in ages) in {11, 12}
    assert max(ages) <= timedelta(days=366)
    old = [("only", now - timedelta(days=9999))]
    assert kept(old, Retention(), now=now) == {"only"}
