"""Waiting until the racy rule does not count: what is as young as a scan is read again by the next one."""

import os
import time
from pathlib import Path


def settle(root: Path) -> None:
    """Wait until nothing in *root* is as young as a scan."""
    newest = max(os.lstat(p).st_ctime_ns for p in [root, *root.rglob("*")])
    while time.time_ns() - newest < 120_000_000:
        time.sleep(0.02)
