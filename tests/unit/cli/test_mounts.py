"""``anyon mount`` and ``anyon rollback`` without a mount: clear words, stable codes, nothing left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from anyon.config import load
from anyon.wiring.mounts import put_back

MAIN = [sys.executable, "-c", "from anyon.cli.main import main; main()"]


def anyon(home: Path, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run a command over a home of its own."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ANYON_")}
    env = clean | {"ANYON_HOME": str(home), "HOME": str(home.parent), **more}
    return subprocess.run(
        [*MAIN, *words, "--json"], env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "words",
    [
        ("mount", "use", "gcsfuse"),
        ("mount", "use", "gcsfuse", "--bucket", "anyon-projects"),
        ("mount", "use", "nfs", "--bucket", "gs://anyon-projects"),
        ("mount", "use", "gcsfuse", "--bucket", "gs://anyon-projects", "--profile", "mine"),
    ],
)
def test_what_cannot_be_set_changes_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A wrong storage, bucket or profile is wrong usage (2), named, and no file is written."""
    done = anyon(tmp_path / "home", *words)
    assert done.returncode == 2
    assert json.loads(done.stderr or done.stdout)["error"]["code"] == "bad_setting"
    assert not (tmp_path / "home" / "storage.toml").exists()


def test_a_storage_is_set_and_taken_back(tmp_path: Path) -> None:
    """``use`` writes the home's storage.toml; ``use checkpoints`` removes it; the environment wins, and that is said."""
    home = tmp_path / "home"
    use = ("mount", "use", "gcsfuse", "--bucket", "gs://anyon-projects/main", "--profile", "plan")
    assert anyon(home, *use).returncode == 0
    assert 'mount_bucket = "gs://anyon-projects/main"' in (home / "storage.toml").read_text()
    assert anyon(home, *use, ANYON_STORAGE="checkpoints").returncode == 5
    assert anyon(home, "mount", "use", "checkpoints").returncode == 0
    assert not (home / "storage.toml").exists()


def test_the_former_storage_comes_back(tmp_path: Path) -> None:
    """Byte by byte, through two mounts; what it replaces is kept; with none before there is none after; repeats are harmless."""
    home, bucket = tmp_path / "home", ("--bucket", "gs://anyon-projects")
    home.mkdir()
    settings = load({"ANYON_HOME": str(home), "HOME": str(tmp_path)})
    former = b'# mine\r\nstorage   = "checkpoints"\n\n# \xec\x98\x9b\n'
    for before in (former, None):
        if before is not None:
            (home / "storage.toml").write_bytes(before)
        assert anyon(home, "mount", "use", "rclone", *bucket).returncode == 0
        assert anyon(home, "mount", "use", "gcsfuse", *bucket).returncode == 0
        last = (home / "storage.toml").read_bytes()
        kept = put_back(settings)
        assert kept is not None
        assert kept.read_bytes() == last
        found = home / "storage.toml"
        assert (found.read_bytes() if found.exists() else None) == before
        assert put_back(settings) is None
        assert (found.read_bytes() if found.exists() else None) == before
        found.unlink(missing_ok=True)
    assert sorted(path.name for path in home.glob("storage*")) == ["storage.toml.rolled-back"]


def test_without_a_mount_it_says_so(tmp_path: Path) -> None:
    """Looking at, or making, a mount that is not set ends with 7 and a hint."""
    done = anyon(tmp_path / "home", "mount", "status")
    assert done.returncode == 7
    assert json.loads(done.stderr or done.stdout)["error"]["code"] == "mount_not_set"


def test_the_file_for_systemd(tmp_path: Path) -> None:
    """``prepare`` writes gcsfuse's configuration and makes the mountpoint; rclone has no such file."""
    home = tmp_path / "home"
    settings = {"ANYON_MOUNT_BUCKET": "gs://anyon-projects/main", "ANYON_STORAGE": "gcsfuse"}
    assert anyon(home, "mount", "prepare", **settings).returncode == 0
    found = json.loads((home / "mount" / "gcsfuse.yaml").read_text())
    assert found["only-dir"] == "main"
    assert (home / "projects-gcs").is_dir()
    refused = anyon(home, "mount", "prepare", **settings | {"ANYON_STORAGE": "rclone"})
    assert json.loads(refused.stderr or refused.stdout)["error"]["code"] == "mounter_without_file"
