"""A mounter without a kernel: its bucket is a directory, whose content moves to the mountpoint and back."""

import asyncio
import itertools
from datetime import timedelta
from pathlib import Path

from anyon.domain.errors import ConflictError, DeadlineExceededError
from anyon.domain.mounts import MountState
from anyon.storage.mounts import programs
from anyon.storage.mounts.mounter import MountInfo, MountSpec


class FolderMounter:
    """A Mounter whose bucket is the directory *bucket*; ``crash`` and ``silence`` do it harm."""

    name = "folder"

    def __init__(self, bucket: Path) -> None:
        self.bucket = bucket
        self.is_silent = False
        self._state = MountState.ABSENT
        self._spec: MountSpec | None = None
        self._lives = itertools.count(1)
        self._device: str | None = None

    def crash(self) -> None:
        """Let the mount die: its files are in the bucket, and not to be seen."""
        if self._spec is not None:
            _move(self._spec.place, self.bucket)
        self._state = MountState.DEAD

    def check(self) -> None:
        """Nothing is needed."""

    async def mount(self, spec: MountSpec) -> MountInfo:
        """Move the bucket's content to the mountpoint."""
        await asyncio.sleep(0)
        if self._state is MountState.ALIVE:
            return await self.look(spec)
        if spec.bucket.startswith("no-such"):
            raise ConflictError("there is no such bucket", code="mount_failed")
        programs.refuse_full(spec.place)
        self.bucket.mkdir(parents=True, exist_ok=True)
        _move(self.bucket, spec.place)
        self._spec, self._state = spec, MountState.ALIVE
        self._device = f"0:{next(self._lives)}"
        return await self.look(spec)

    async def unmount(self, spec: MountSpec, *, is_forced: bool = False) -> None:  # noqa: ARG002 - nothing is ever busy here
        """Move the content back."""
        await asyncio.sleep(0)
        if self._state is MountState.ALIVE:
            _move(spec.place, self.bucket)
        self._state, self._spec = MountState.ABSENT, None

    async def look(self, spec: MountSpec) -> MountInfo:  # noqa: ARG002 - it has one mount only
        """Return what the mount is like."""
        await asyncio.sleep(0)
        if self._state is MountState.ALIVE and self.is_silent:
            detail = "told to be silent"
            return MountInfo(state=MountState.SILENT, device=self._device, detail=detail)
        device = None if self._state is MountState.ABSENT else self._device
        return MountInfo(state=self._state, device=device)

    async def settle(self, spec: MountSpec, *, deadline: timedelta) -> None:  # noqa: ARG002 - as above
        """All is there at once, unless it is silent."""
        await asyncio.sleep(0)
        if self.is_silent:
            raise DeadlineExceededError("it is silent", code="mount_unsettled")


def _move(source: Path, target: Path) -> None:
    for path in list(source.iterdir()):
        path.rename(target / path.name)
