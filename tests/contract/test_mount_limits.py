"""What a mounted bucket can and cannot do, as the operator's guide says; a change of it here is news for the guide."""

import errno
import fcntl
import os
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.mount_fixtures import mounter_or_skip

from anyon.testing.mount_trials import mount_trial
from anyon.testing.mounter_contract import PATIENCE, MounterTrial

pytestmark = pytest.mark.timeout(300)
GIT = {"GIT_CONFIG_GLOBAL": "/dev/null"} | {
    f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}


@pytest.fixture(params=["gcsfuse", "rclone"])
async def trial(request: pytest.FixtureRequest, tmp_path: Path) -> "Iterator[MounterTrial]":  # type: ignore[misc]
    """Each real mounter, mounted with the tuned profile."""
    mounter = mounter_or_skip(str(request.param))
    with mount_trial(mounter, tmp_path, profile="tuned") as trial:
        await mounter.mount(trial.spec)
        yield trial


def refused(act: Callable[[], object]) -> int:
    """Return the error number with which *act* is refused, 0 if it is not."""
    try:
        act()
    except OSError as error:
        return error.errno or -1
    return 0


def git(place: Path, *words: str) -> str:
    """Run git with the settings that projects on a mount have."""
    settings = [
        "core.fileMode=false",
        "core.checkStat=minimal",
        "core.createObject=rename",
        "gc.auto=0",
    ]
    options = [word for pair in settings for word in ("-c", pair)]
    done = subprocess.run(
        ["git", *options, "-C", str(place), *words],
        env={**os.environ, **GIT},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE.total_seconds(),
    )
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


async def test_what_is_not_there(trial: MounterTrial) -> None:
    """No hard links, no pipes; modes are the mount's, whatever chmod was told."""
    place = trial.spec.place
    (place / "file").write_text("1")
    no = {errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP, errno.EIO}
    assert refused(lambda: os.link(place / "file", place / "link")) in no
    assert refused(lambda: os.mkfifo(place / "pipe")) in no
    refused(lambda: (place / "file").chmod(0o600))
    assert stat.S_IMODE((place / "file").stat().st_mode) == 0o755


async def test_what_is_there(trial: MounterTrial) -> None:
    """Exclusive creation, renames over files and of directories, links and locks within one machine."""
    place = trial.spec.place
    handle = os.open(place / "lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    assert refused(lambda: os.open(place / "lock", os.O_CREAT | os.O_EXCL)) == errno.EEXIST
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)
    (place / "new").write_text("2")
    (place / "lock").unlink()
    (place / "old").write_text("1")
    (place / "new").rename(place / "old")
    assert (place / "old").read_text() == "2"
    (place / "folder" / "below").mkdir(parents=True)
    (place / "folder" / "below" / "file").write_text("3")
    (place / "folder").rename(place / "moved")
    assert (place / "moved" / "below" / "file").read_text() == "3"
    (place / "symlink").symlink_to("old")
    assert (place / "symlink").readlink() == Path("old")


async def test_the_flow_of_worktrees(trial: MounterTrial) -> None:
    """Init, commit, worktree, merge, removal and collection work, a new mount reads them, and all is whole."""
    place = trial.spec.place / "사용자" / "project"
    place.mkdir(parents=True)
    git(place, "init", "-q", "-b", "main")
    (place / "읽어 봐.txt").write_text("one\n")
    (place / "big").write_bytes(os.urandom(3_000_000))
    git(place, "add", "-A")
    git(place, "commit", "-qm", "one")
    git(place, "worktree", "add", "-q", ".worktrees/one", "-b", "one")
    (place / ".worktrees/one/읽어 봐.txt").write_text("two\n")
    git(place / ".worktrees/one", "commit", "-qam", "two")
    assert git(place / ".worktrees/one", "status", "--short") == ""
    git(place, "merge", "-q", "one")
    git(place, "worktree", "remove", "--force", ".worktrees/one")
    git(place, "gc", "-q")
    await trial.mounter.unmount(trial.spec)
    await trial.mounter.mount(trial.spec)
    git(place, "fsck", "--strict")
    assert git(place, "status", "--short", "--untracked-files=no") == ""
    assert (place / "읽어 봐.txt").read_text() == "two\n"


async def test_a_database_within_one_life_of_the_mount(trial: MounterTrial) -> None:
    """SQLite with a rollback journal works while one machine uses it; each commit uploads the whole file."""
    with sqlite3.connect(trial.spec.place / "a.db") as database:
        database.execute("create table a (b)")
        database.execute("insert into a values (1)")
    database.close()
    await trial.mounter.settle(trial.spec, deadline=PATIENCE)
    with sqlite3.connect(trial.spec.place / "a.db") as database:
        assert database.execute("select * from a").fetchall() == [(1,)]
    database.close()
