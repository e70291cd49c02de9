"""What tests of mounts share: where the programs are, and what to do without them."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from anyon.domain.errors import MissingError
from anyon.storage.mounts.gcsfuse import Gcsfuse
from anyon.storage.mounts.mounter import Mounter
from anyon.storage.mounts.rclone import Rclone

ROOT = Path(__file__).parent.parent


def gcsfuse_program() -> str:
    """Return the gcsfuse that the tests' script has built, else the machine's own."""
    built = sorted((ROOT / ".cache/services/gcsfuse").glob("v*/gcsfuse"))
    return str(built[-1]) if built else "gcsfuse"


def rclone_program() -> str:
    """Return the rclone of the environment, else the machine's own."""
    beside = ROOT / ".venv/bin/rclone"
    return str(beside) if beside.exists() else "rclone"


def mounter_or_skip(name: str) -> Mounter:
    """Return a driver whose programs are there; without them a skip at home and a failure in CI."""
    mounter = Gcsfuse(gcsfuse_program()) if name == "gcsfuse" else Rclone(rclone_program())
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        missing("mounts for all need root, or fusermount3 with user_allow_other")
    try:
        mounter.check()
    except MissingError as error:
        missing(f"{error.message}: {error.hint}")
    return mounter


def missing(reason: str) -> NoReturn:
    """Skip, or fail where everything must be there."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
