"""The interface of what mounts a bucket, and the shapes it speaks in.

A mount outlives the server that made it, as containers do. What is asked of a mount may never
answer, so nothing of it is touched by the server's own threads before ``state`` has said ALIVE.
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from anyon.domain.mounts import MountState
from anyon.storage.mounts.profiles import Profile

MOUNT_DEADLINE = timedelta(seconds=60)
"""How long mounting may take."""
LOOK_DEADLINE = timedelta(seconds=5)
"""How long a mount may take to answer a look before it is SILENT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSpec:
    """What is to be mounted, and where.

    ``prefix`` is a directory of the bucket, or empty. ``place`` is an empty directory; ``work``
    is a directory of the local disk for configuration, logs and staged writes. All files belong
    to ``uid`` and ``gid``: a bucket keeps no owners. ``endpoint`` is the URL of an emulator.
    """

    bucket: str
    place: Path
    work: Path
    profile: Profile
    uid: int
    gid: int
    prefix: str = ""
    endpoint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MountInfo:
    """A look's outcome. ``device`` (as in mountinfo, ``0:57``) names this one life of the mount."""

    state: MountState
    device: str | None = None
    detail: str = ""


class Mounter(Protocol):
    """What mounts a bucket."""

    @property
    def name(self) -> str:
        """The driver's name, such as ``gcsfuse``."""
        ...

    def check(self) -> None:
        """Raise MissingError where a program or the kernel's FUSE is not there; the hint says how to get it.

        Codes: ``gcsfuse_missing``, ``rclone_missing``, ``fuse_missing``.
        """
        ...

    async def mount(self, spec: MountSpec) -> MountInfo:
        """Return once the bucket is mounted at ``spec.place``; one that is ALIVE or SILENT stays as it is.

        What is left of a DEAD one is removed first. ConflictError ``mountpoint_not_empty`` where
        files would be hidden; UnavailableError ``mount_failed`` (with the program's own words) or
        DeadlineExceededError ``mount_deadline``: then nothing is mounted. MissingError as ``check``.
        """
        ...

    async def unmount(self, spec: MountSpec, *, is_forced: bool = False) -> None:
        """Unmount; ABSENT is success. ConflictError ``mount_busy`` while something uses it.

        What was closed is in the bucket before it goes. *is_forced* lets go of a mount that is
        busy or dead: who still uses it gets errors.
        """
        ...

    async def look(self, spec: MountSpec) -> MountInfo:
        """Return what the mount is like, within LOOK_DEADLINE and a little; never hangs, never raises."""
        ...

    async def settle(self, spec: MountSpec, *, deadline: timedelta) -> None:
        """Return once every closed file is in the bucket; DeadlineExceededError ``mount_unsettled``."""
        ...
