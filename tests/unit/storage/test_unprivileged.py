"""A server that is not root captures what it may read, and says what it may not."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

NOBODY = 65534
PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from anyon.clock import SystemClock
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.folders import remove_tree
from anyon.testing.trees import describe, make_hostile

async def main(root):
    made = Checkpoints(MemoryStore(), cache=Path("cache"), clock=SystemClock())
    trees = {"workspace": Path("tree")}
    make_hostile(Path("tree"))
    assert (await made.save("u/p", trees)).checkpoint.unreadable == 0
    await made.restore("u/p", None, {"workspace": Path("back")})
    assert describe(Path("back")) == describe(Path("tree"))
    # What was installed in a sandbox: an overlay's marks are anybody's to make.
    Path("layer/upper/usr").mkdir(parents=True)
    os.mknod("layer/upper/usr/gone", 0o020000, 0)
    os.setxattr("layer/upper/usr", "user.overlay.opaque", b"y")
    await made.save("u/layer", {"system": Path("layer")})
    restored = await made.restore("u/layer", None, {"system": Path("layer-back")})
    assert restored.notes == []
    assert describe(Path("layer-back")) == describe(Path("layer"))
    Path("tree/exact").chmod(0)
    Path("tree/closed").chmod(0)
    os.utime("tree")
    for _ in range(3):
        saved = await made.save("u/p", trees)
        assert saved.checkpoint.unreadable == 2, saved
        await asyncio.sleep(0.1)
    assert set(saved.report.skipped) >= {("workspace/closed", "unreadable")}
    await made.restore("u/p", None, {"workspace": Path("again")})
    assert not Path("again/exact").exists()
    Path("tree/exact").chmod(0o600)
    Path("tree/closed").chmod(0o500)
    assert (await made.save("u/p", trees)).checkpoint.unreadable == 0
    for name in ("tree", "back", "again"):
        Path(name, "empty").chmod(0)
    for name in ("tree", "back", "again", "layer", "layer-back"):
        remove_tree(name.encode())
    assert [p.name for p in Path().iterdir()] == ["cache"]
    await made.close()

uid = int(sys.argv[1])
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
asyncio.run(main(Path()))
"""


def test_who_is_not_root() -> None:
    """What cannot be read is counted in every checkpoint until it can be; the rest comes back."""
    # Not pytest's own directory: that one is closed to others.
    with tempfile.TemporaryDirectory() as place:
        if os.geteuid() == 0:
            os.chown(place, NOBODY, NOBODY)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(NOBODY)],
            cwd=place,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.returncode == 0, done.stderr
