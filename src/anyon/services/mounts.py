"""The mounted bucket on which projects may live: looked at, mended, asked for before each use."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import structlog

from anyon.clock import Clock
from anyon.domain import layout
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError, UnavailableError
from anyon.domain.mounts import MountState, is_stale, must_remount
from anyon.engines.engine import ContainerInfo
from anyon.storage.mounts import tables
from anyon.storage.mounts.mounter import Mounter, MountInfo, MountSpec
from anyon.telemetry import Metrics

log = structlog.get_logger(__name__)
PLACE = "projects-gcs"
"""The mountpoint's name in Anyon's home."""
SETTLE_DEADLINE = timedelta(minutes=10)
_FRESH = 1.0


def device_inside(info: ContainerInfo) -> str | None:
    """Return the device of what a running container shows as its workspace; None if it cannot be known."""
    entry = None if info.pid is None else tables.shown_to(info.pid, str(layout.WORKSPACE))
    return None if entry is None else entry.device


class Mounts:
    """One server's mount, at *place*; with *mounter* None there is none, and what lies there cannot be used.

    *is_external*: another service mounts; this one only watches.
    """

    def __init__(
        self,
        *,
        place: Path,
        clock: Clock,
        mounter: Mounter | None = None,
        spec: MountSpec | None = None,
        is_external: bool = False,
        metrics: Metrics | None = None,
        device_of: Callable[[ContainerInfo], str | None] = device_inside,
    ) -> None:
        self.place = place
        self.mounter = mounter
        self.spec = spec
        self.is_external = is_external
        self._clock = clock
        self._metrics = metrics or Metrics()
        self._device_of = device_of
        self._info = MountInfo(state=MountState.ABSENT)
        self._looked: float | None = None
        self._mending = asyncio.Lock()

    @property
    def is_set(self) -> bool:
        """Whether this server has a mount at all."""
        return self.mounter is not None

    @property
    def last(self) -> MountInfo:
        """What the last look has found."""
        return self._info

    def covers(self, project: Project) -> bool:
        """Say whether a project's files lie on the mount."""
        return Path(project.path).is_relative_to(self.place)

    async def look(self) -> MountInfo:
        """Look at the mount now, and remember what was found."""
        if self.mounter is None or self.spec is None:
            return self._info
        found = await self.mounter.look(self.spec)
        if found.state is not self._info.state:
            log.info("mount.changed", was=self._info.state, now=found.state, detail=found.detail)
        self._info, self._looked = found, self._clock.monotonic()
        self._metrics.mount.seen(is_alive=found.state is MountState.ALIVE)
        return found

    async def mend(self) -> MountInfo:
        """Look, mount anew what is absent or dead, and return what is there then; see ``Mounter.mount``."""
        async with self._mending:
            found = await self.look()
            if self.mounter is None or self.spec is None:
                return found
            if not must_remount(found.state, is_external=self.is_external):
                return found
            try:
                await self.mounter.mount(self.spec)
            except AnyonError:
                self._metrics.mount.failed()
                raise
            self._metrics.mount.mounted()
            log.info("mount.mounted", mounter=self.mounter.name, bucket=self.spec.bucket)
            return await self.look()

    async def require(self, project: Project) -> None:
        """Return if the project's files can be reached; UnavailableError otherwise, and nothing is touched.

        Codes: ``mount_not_set``, ``mount_unavailable``, or what mounting says.
        """
        if not self.covers(project):
            return
        if not self.is_set:
            raise UnavailableError(
                f"the project {project.name!r} lies on a mounted bucket, and no mount is set",
                code="mount_not_set",
                hint="Set ANYON_STORAGE (gcsfuse or rclone) and ANYON_MOUNT_BUCKET as they were.",
            )
        is_fresh = self._looked is not None and self._clock.monotonic() - self._looked < _FRESH
        if is_fresh and self._info.state is MountState.ALIVE:
            return
        found = await self.mend()
        if found.state is not MountState.ALIVE:
            raise UnavailableError(
                f"the mounted bucket is {found.state.value} ({found.detail or 'no more is known'})",
                code="mount_unavailable",
                hint="`anyon doctor` looks at it; work goes on as soon as it answers.",
            )

    def is_stale(self, project: Project, info: ContainerInfo) -> bool:
        """Say whether a running container shows an earlier life of the mount: then it must restart."""
        if not self.covers(project) or self._info.state is not MountState.ALIVE:
            return False
        return is_stale(self._device_of(info), self._info.device)

    async def settle(self) -> None:
        """Return once every closed file is in the bucket; DeadlineExceededError ``mount_unsettled``."""
        if self.mounter is not None and self.spec is not None:
            await self.mounter.settle(self.spec, deadline=SETTLE_DEADLINE)
