"""Mounts by gcsfuse v3: its configuration file, rendered; its daemon, which outlives the server.

Options are named as version 3 does; an unknown one makes the mount fail, so there is none for show.
"""

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from anyon.storage.mounts import probes, programs
from anyon.storage.mounts.mounter import (
    LOOK_DEADLINE,
    MOUNT_DEADLINE,
    MountInfo,
    MountSpec,
)
from anyon.storage.mounts.mountings import mounted

PROGRAM = "gcsfuse"
_BYTES_PER_ENTRY = 1640
"""What gcsfuse's own documentation reckons for one entry of its cache, the negative ones included."""
_RENAME_LIMIT = 200_000


def render(spec: MountSpec) -> str:
    """Return the text of the configuration file (JSON, which is YAML too, so that no name can break it)."""
    return json.dumps(options(spec), indent=2, ensure_ascii=True) + "\n"


def options(spec: MountSpec) -> Mapping[str, Any]:
    """Return the options by their names of today; what is not set is gcsfuse's own default."""
    profile = spec.profile
    found: dict[str, Any] = {
        "implicit-dirs": True,
        "file-system": {
            # Words, not numbers: gcsfuse reads a number as decimal.
            "dir-mode": f"{profile.dir_mode:o}",
            "file-mode": f"{profile.file_mode:o}",
            "uid": spec.uid,
            "gid": spec.gid,
            "kernel-list-cache-ttl-secs": profile.list_ttl,
            "temp-dir": str(spec.work / "tmp"),
            # A bucket without a hierarchy has no directories to rename: each object is, one by one.
            "rename-dir-limit": _RENAME_LIMIT,
            "fuse-options": ["allow_other"],
        },
        "metadata-cache": {
            "ttl-secs": profile.metadata_ttl,
            "stat-cache-max-size-mb": -(-profile.entries * _BYTES_PER_ENTRY // 2**20),
        },
        "gcs-connection": {"max-conns-per-host": profile.connections},
        "logging": {"file-path": str(log_of(spec)), "format": "json", "severity": "warning"},
    }
    if spec.prefix:
        found["only-dir"] = spec.prefix
    if profile.max_retry_sleep is not None:
        found["gcs-retries"] = {"max-retry-sleep": f"{profile.max_retry_sleep}s"}
    if spec.endpoint is not None:
        # An emulator speaks JSON over HTTP only: no folders, no move of an object.
        found["gcs-auth"] = {"anonymous-access": True}
        found["gcs-connection"] |= {
            "custom-endpoint": f"{spec.endpoint.rstrip('/')}/storage/v1/",
            "experimental-enable-json-read": True,
        }
        found |= {"enable-hns": False, "enable-atomic-rename-object": False}
    return found


def log_of(spec: MountSpec) -> Path:
    """Return where gcsfuse writes what it has to say."""
    return spec.work / "gcsfuse.log"


def write(spec: MountSpec) -> Path:
    """Write the configuration file and make the directories that it names; return its path."""
    (spec.work / "tmp").mkdir(parents=True, exist_ok=True, mode=0o700)
    path = spec.work / "gcsfuse.yaml"
    fresh = path.with_suffix(".new")
    fresh.write_text(render(spec), encoding="ascii")
    fresh.replace(path)
    return path


class Gcsfuse:
    """A Mounter by gcsfuse. *program* is its name or path."""

    name = "gcsfuse"

    def __init__(self, program: str = PROGRAM) -> None:
        self._program = program

    def check(self) -> None:
        """Raise MissingError where gcsfuse or FUSE is not there."""
        self._found()
        programs.check_fuse()

    def _found(self) -> str:
        return programs.found(
            self._program,
            code="gcsfuse_missing",
            hint="install Google's package gcsfuse, or build it with Go 1.26 or newer: "
            "go install github.com/googlecloudplatform/gcsfuse/v3@v3.11.2",
        )

    async def mount(self, spec: MountSpec) -> MountInfo:
        """Mount the bucket."""

        async def start() -> None:
            argv = [self._found(), "--config-file", str(write(spec)), spec.bucket, str(spec.place)]
            await programs.run(
                argv, log=spec.work / "mount.log", own_log=log_of(spec), deadline=MOUNT_DEADLINE
            )

        return await mounted(self, spec, start)

    async def unmount(self, spec: MountSpec, *, is_forced: bool = False) -> None:
        """Unmount; gcsfuse writes what is open before it goes."""
        await programs.unmount(spec.place, is_forced=is_forced)

    async def look(self, spec: MountSpec) -> MountInfo:
        """Return what the mount is like."""
        return await probes.look(spec.place, deadline=LOOK_DEADLINE)

    async def settle(self, spec: MountSpec, *, deadline: timedelta) -> None:
        """Return at once: gcsfuse ends a file's close only when the object is in the bucket."""
