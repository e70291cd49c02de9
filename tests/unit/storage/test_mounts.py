"""Mounts as text: what is rendered, and how the kernel's table is read."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from anyon.domain.errors import DeadlineExceededError, MissingError, UnavailableError
from anyon.storage.mounts import gcsfuse, programs, rclone, tables
from anyon.storage.mounts.gcsfuse import Gcsfuse
from anyon.storage.mounts.mounter import MOUNT_DEADLINE, MountSpec
from anyon.storage.mounts.profiles import PROFILES
from anyon.storage.mounts.rclone import Rclone

SPEC = MountSpec(
    bucket="anyon-projects",
    place=Path("/var/opt/anyon/projects-gcs"),
    work=Path("/var/opt/anyon/mount"),
    profile=PROFILES["plan"],
    uid=1000,
    gid=1000,
)
TABLE = (
    "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
    "90 22 0:57 / /a\\040b rw,nosuid,nodev shared:7 - fuse.gcsfuse bucket rw\n"
    "91 22 0:58 /u/p /workspace rw - fuse.gcsfuse bucket rw\n"
    "92 22 0:59 / /workspace rw - fuse.gcsfuse bucket rw\n"
    "nonsense\n"
)


def test_the_plans_values_have_todays_names() -> None:
    """The profile ``plan`` renders every option of the plan under its name of version 3."""
    found = json.loads(gcsfuse.render(SPEC))
    assert found["implicit-dirs"] is True
    files = found["file-system"]
    assert (files["dir-mode"], files["file-mode"]) == ("755", "644")
    assert files["kernel-list-cache-ttl-secs"] == 60
    assert files["temp-dir"] == "/var/opt/anyon/mount/tmp"
    assert files["fuse-options"] == ["allow_other"]
    assert found["metadata-cache"]["ttl-secs"] == 60
    assert found["gcs-connection"] == {"max-conns-per-host": 100}
    assert "gcs-retries" not in found
    assert "enable-storage-client-library" not in gcsfuse.render(SPEC)


def test_the_tuned_values() -> None:
    """The profile ``tuned`` renders phase 4: 300 s, 200 connections, 30 s of sleep, 100,000 entries."""
    found = gcsfuse.options(replace(SPEC, profile=PROFILES["tuned"], prefix="main"))
    assert found["metadata-cache"] == {"ttl-secs": 300, "stat-cache-max-size-mb": 157}
    assert found["file-system"]["kernel-list-cache-ttl-secs"] == 300
    assert found["file-system"]["file-mode"] == "755"
    assert found["gcs-connection"]["max-conns-per-host"] == 200
    assert found["gcs-retries"] == {"max-retry-sleep": "30s"}
    assert found["only-dir"] == "main"


def test_an_emulator_gets_what_it_can() -> None:
    """An endpoint means no credentials, JSON reads, no folders and no move; else none of these is set."""
    found = gcsfuse.options(replace(SPEC, endpoint="http://127.0.0.1:4443/"))
    assert found["gcs-auth"] == {"anonymous-access": True}
    assert found["gcs-connection"]["custom-endpoint"] == "http://127.0.0.1:4443/storage/v1/"
    assert found["enable-hns"] is False
    assert "enable-hns" not in gcsfuse.options(SPEC)
    assert "gcs-auth" not in gcsfuse.options(SPEC)


def test_rclone_is_told_the_same() -> None:
    """Rclone gets the profile's modes and times, the place, and no configuration of the user's."""
    words = rclone.arguments(replace(SPEC, prefix="main"))
    assert words[:3] == ["mount", "anyon:anyon-projects/main", str(SPEC.place)]
    assert "--file-perms=0644" in words
    assert "--dir-cache-time=60s" in words
    assert rclone.environment(SPEC)["RCLONE_CONFIG"] == "/dev/null"
    assert rclone.environment(SPEC)["RCLONE_CONFIG_ANYON_ENV_AUTH"] == "true"
    assert "RCLONE_CONFIG_ANYON_ENDPOINT" not in rclone.environment(SPEC)


def test_the_table_of_mounts() -> None:
    """Escapes are undone, the last of two mounts at a place counts, other lines are left out."""
    entries = tables.parse(TABLE)
    assert len(entries) == 4
    spaced = tables.at(entries, "/a b")
    assert spaced is not None
    assert (spaced.device, spaced.kind) == ("0:57", "fuse.gcsfuse")
    top = tables.at(entries, "/workspace")
    assert top is not None
    assert top.device == "0:59"
    assert tables.at(entries, "/nowhere") is None


def test_the_table_of_another_process() -> None:
    """What a process sees is read from its own table; of one that is gone nothing is known."""
    here = tables.shown_to(os.getpid(), "/")
    assert here is not None
    assert tables.shown_to(2**22 + 1, "/") is None


@pytest.mark.parametrize(
    ("mounter", "code"),
    [(Gcsfuse("no-such-gcsfuse"), "gcsfuse_missing"), (Rclone("no-such-rclone"), "rclone_missing")],
)
async def test_a_missing_program_is_told(mounter: Gcsfuse | Rclone, code: str) -> None:
    """Without its program a mounter says so with a hint, before anything is touched."""
    with pytest.raises(MissingError) as refused:
        await mounter.mount(SPEC)
    assert refused.value.code == code
    assert "install" in refused.value.hint
    assert not SPEC.work.exists()


def test_a_machine_without_fuse_is_told(tmp_path: Path) -> None:
    """Without /dev/fuse it is MissingError ``fuse_missing`` with a hint."""
    with pytest.raises(MissingError) as refused:
        programs.check_fuse(tmp_path / "fuse")
    assert refused.value.code == "fuse_missing"
    assert "modprobe" in refused.value.hint


async def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    """A mount that fails carries the program's last words, of its output and of its own log."""
    (tmp_path / "own").write_text("403 forbidden")
    argv = ["sh", "-c", "echo no such bucket >&2; exit 3"]
    with pytest.raises(UnavailableError, match=r"no such bucket.* 403 forbidden") as refused:
        await programs.run(
            argv, log=tmp_path / "log", own_log=tmp_path / "own", deadline=MOUNT_DEADLINE
        )
    assert refused.value.code == "mount_failed"


async def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    """Past the deadline the whole group is killed, also what holds no pipe of ours."""
    argv = ["sh", "-c", "sleep 1000 & echo $! >pid; wait"]
    with pytest.raises(DeadlineExceededError) as refused:
        await programs.run(
            ["env", "-C", str(tmp_path), *argv],
            log=tmp_path / "log",
            own_log=tmp_path / "own",
            deadline=MOUNT_DEADLINE / 60,
        )
    assert refused.value.code == "mount_deadline"
    pid = int((tmp_path / "pid").read_text())
    for _ in range(1000):
        status = Path(f"/proc/{pid}/status")
        if not status.exists() or "State:\tZ" in status.read_text():
            break
        os.sched_yield()
