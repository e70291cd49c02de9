# Names are bytes here, which pathlib does not take.
# ruff: noqa: PTH101, PTH103, PTH104, PTH108, PTH112, PTH114, PTH211
"""The format is what its page says, and trees of every shape survive it."""

import asyncio
import hashlib
import importlib.util
import json
import os
import stat
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyon.clock import SystemClock
from anyon.storage import records, trees
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.folders import remove_tree
from anyon.storage.keys import PlainKeys
from anyon.storage.objects import DamagedError
from anyon.storage.records import Head
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


async def test_an_independent_reader_gets_layers_back(tmp_path: Path) -> None:
    """What was installed comes back by the page alone too: deletions, opaque directories, rights."""
    make_layer(tmp_path / "layer")
    store = MemoryStore()
    checkpoints = Checkpoints(store, cache=tmp_path / "cache", clock=SystemClock())
    base = {"engine": "docker", "image": "some:image", "image_id": "sha256:0"}
    saved = await checkpoints.save(PROJECT, {"system": tmp_path / "layer"}, bases={"system": base})
    assert saved.checkpoint.roots["system"].base == base
    assert (await checkpoints.latest(PROJECT)) == saved.checkpoint
    await checkpoints.restore(PROJECT, None, {"system": tmp_path / "restored"})
    await checkpoints.close()
    objects = {info.key: store.get(info.key).data for info in store.list("")}
    independent_reader.extract(objects, PROJECT, "system", tmp_path / "read")
    wanted = describe(tmp_path / "layer")
    for place in ("restored", "read"):
        found = describe(tmp_path / place)
        assert found == {path: without_notes(row) for path, row in wanted.items()}
    kinds = [stat.S_IFMT(int(str(row[0]))) for row in wanted.values()]
    assert kinds.count(stat.S_IFCHR) == 2
    assert any("trusted.overlay.opaque" in str(row[7]) for row in wanted.values())


def make_layer(root: Path) -> None:
    """Make what an overlay's upper directory may hold. Needs root."""
    if os.geteuid() != 0:
        pytest.skip("only root makes an overlay's own attributes")
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/su").write_bytes(b"program")
    os.chown(root / "usr/bin/su", 0, 42)
    (root / "usr/bin/su").chmod(0o6755)
    # cap_net_raw=ep, as the kernel keeps it
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(root / "usr/bin/su", "security.capability", capability)
    os.mknod(root / "usr/bin/gone", stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(root / "usr/share", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    (root / "etc").mkdir()
    os.setxattr(root / "etc", "trusted.overlay.opaque", b"y")
    (root / "opt").mkdir()
    os.setxattr(root / "opt", "user.overlay.opaque", b"y")
    os.setxattr(root / "opt", "trusted.overlay.origin", b"a note of this machine's")
    os.setxattr(root / "opt", "user.overlay.impure", b"y")
    (root / "lib").symlink_to("usr/lib")


def without_notes(row: tuple[object, ...]) -> tuple[object, ...]:
    """Return a description without what an overlay notes for itself."""
    xattrs = row[7]
    assert isinstance(xattrs, tuple)
    return (*row[:7], tuple(x for x in xattrs if not x[0].endswith(("origin", "impure"))))


RECORDED = Path(__file__).with_name("recorded")


@pytest.mark.parametrize("reader", ["anyon", "independent"])
async def test_a_checkpoint_of_format_1_is_read(tmp_path: Path, reader: str) -> None:
    """What a server of the first format wrote is restored, byte for byte, by this one."""
    if os.geteuid() != 0:
        pytest.skip("the recorded trees are root's")
    with zipfile.ZipFile(RECORDED / "format-1.zip") as recorded:
        objects = {name: recorded.read(name) for name in recorded.namelist()}
    wanted = json.loads((RECORDED / "format-1.json").read_text())
    store = MemoryStore()
    for key, value in objects.items():
        store.put(key, value)
    checkpoints = Checkpoints(store, cache=tmp_path / "cache", clock=SystemClock())
    second, first = await checkpoints.list(PROJECT)
    assert (first.reason, second.reason, second.parent) == ("first", "second", first.id)
    assert all(b'"format":1' in objects[key] for key in objects if "/checkpoints/" in key)
    assert await checkpoints.records(PROJECT, first.id) == b'{"a": 1}'
    for number, (checkpoint, tree, expected) in enumerate(
        [
            (first, "workspace", "first"),
            (second, "workspace", "second"),
            (second, "system", "system"),
        ]
    ):
        back = tmp_path / str(number)
        if reader == "anyon":
            await checkpoints.restore(PROJECT, checkpoint.id, {tree: back})
        else:
            independent_reader.extract(objects, PROJECT, tree, back, checkpoint.id)
        assert plain(back) == wanted[expected]
    await checkpoints.close()


async def test_a_checkpoint_of_format_1_is_built_on(tmp_path: Path) -> None:
    """The next save after an update goes on from the older format: nothing is written twice."""
    with zipfile.ZipFile(RECORDED / "format-1.zip") as recorded:
        objects = {name: recorded.read(name) for name in recorded.namelist()}
    store = MemoryStore()
    for key, value in objects.items():
        store.put(key, value)
    checkpoints = Checkpoints(store, cache=tmp_path / "cache", clock=SystemClock())
    older = await checkpoints.latest(PROJECT)
    assert older is not None
    await checkpoints.restore(
        PROJECT, None, {"workspace": tmp_path / "w", "system": tmp_path / "s"}
    )
    (tmp_path / "w/new").write_text("new")
    saved = await checkpoints.save(
        PROJECT,
        {"workspace": tmp_path / "w", "system": tmp_path / "s"},
        bases={"system": {"engine": "bubblewrap"}},
    )
    assert saved.checkpoint.parent == older.id
    assert set(saved.checkpoint.packs) & set(older.packs)
    assert saved.checkpoint.new_bytes < 3000
    newest = store.get(f"{PROJECT}/checkpoints/{saved.checkpoint.id}").data
    assert b'"format":2' in newest
    back = {"workspace": tmp_path / "w2", "system": tmp_path / "s2"}
    await checkpoints.restore(PROJECT, None, back)
    assert describe(tmp_path / "w2") == describe(tmp_path / "w")
    assert describe(tmp_path / "s2") == describe(tmp_path / "s")
    assert (await checkpoints.verify(PROJECT, older.id, read_data=True)).is_whole
    await checkpoints.close()


@pytest.mark.parametrize("number", [0, 3, "2", None])
async def test_records_of_an_unknown_format_are_refused(number: object) -> None:
    """A record of a later format says so; it is not taken for damage that a repair would drop."""
    key = PlainKeys().current(PROJECT)
    data = records.encode(key, "head", Head(None, 0, datetime.now(UTC)))
    body = json.loads(data.split(b"\n")[1]) | {"format": number}
    text = json.dumps(body).encode()
    envelope = json.dumps({"key": key.id.hex(), "signature": key.signature(text)}).encode()
    with pytest.raises(DamagedError, match="does not know") as refused:
        records.decode_head(envelope + b"\n" + text + b"\n", PlainKeys(), PROJECT)
    assert refused.value.hint == "Update Anyon."


def test_members_that_are_not_known_are_left_aside() -> None:
    """A writer of the same format may add members: what was read before is read as before."""
    key = PlainKeys().current(PROJECT)
    head = Head("one", 3, datetime.now(UTC), "server")
    body = json.loads(records.encode(key, "head", head).split(b"\n")[1]) | {"later": [1]}
    text = json.dumps(body).encode()
    envelope = json.dumps({"key": key.id.hex(), "signature": key.signature(text)}).encode()
    data = envelope + b"\n" + text + b"\n"
    assert records.decode_head(data, PlainKeys(), PROJECT) == head


def plain(tree: Path) -> dict[str, list[object]]:
    """Return a description as the recorded ones are kept: contents of files by their hash."""
    found: dict[str, list[object]] = {}
    for path, (kind, mode, uid, gid, mtime, content, link, xattrs) in describe(tree).items():
        assert isinstance(content, bytes)
        assert isinstance(link, bytes)
        assert isinstance(xattrs, tuple)
        is_file = kind == stat.S_IFREG
        shown = hashlib.sha256(content).hexdigest() if is_file else content.hex()
        pairs = [[name, value.hex()] for name, value in xattrs]
        found[path.hex()] = [kind, mode, uid, gid, mtime, shown, link.hex(), pairs]
    return found


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
