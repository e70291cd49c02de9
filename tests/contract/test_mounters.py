"""The mounters keep the contract: gcsfuse and rclone over an emulator, the folder without a kernel."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.mount_fixtures import mounter_or_skip

from anyon.storage.mounts.mounter import MountSpec
from anyon.storage.mounts.profiles import PROFILES
from anyon.testing.mount_trials import mount_trial
from anyon.testing.mounter_contract import MounterContract, MounterTrial
from anyon.testing.mounters import FolderMounter

pytestmark = pytest.mark.timeout(300)


class TestGcsfuse(MounterContract):
    """gcsfuse with the plan's profile, the bucket whole."""

    @pytest.fixture
    def trial(self, tmp_path: Path) -> Iterator[MounterTrial]:
        """A bucket in an emulator of its own."""
        with mount_trial(mounter_or_skip("gcsfuse"), tmp_path) as trial:
            yield trial


class TestRclone(MounterContract):
    """rclone with the tuned profile, below a prefix of the bucket."""

    @pytest.fixture
    def trial(self, tmp_path: Path) -> Iterator[MounterTrial]:
        """A bucket in an emulator of its own."""
        mounter = mounter_or_skip("rclone")
        with mount_trial(mounter, tmp_path, prefix="main", profile="tuned") as trial:
            yield trial


class TestFolder(MounterContract):
    """The mounter that tests of services use."""

    @pytest.fixture
    def trial(self, tmp_path: Path) -> MounterTrial:
        """A directory as the bucket."""
        mounter = FolderMounter(tmp_path / "bucket")
        spec = MountSpec(
            bucket="b",
            place=tmp_path / "mount",
            work=tmp_path / "work",
            profile=PROFILES["plan"],
            uid=os.getuid(),
            gid=os.getgid(),
        )

        def stored(name: str) -> bytes | None:
            paths = [root / name for root in (mounter.bucket, spec.place)]
            return next((path.read_bytes() for path in paths if path.is_file()), None)

        def silence(is_silent: bool) -> None:
            mounter.is_silent = is_silent

        return MounterTrial(
            mounter=mounter,
            spec=spec,
            stored=stored,
            crash=mounter.crash,
            silence=lambda: silence(True),
            speak=lambda: silence(False),
            is_real=False,
        )
