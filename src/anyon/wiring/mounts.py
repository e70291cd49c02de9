"""Which mounter: the only place that names the drivers, and what they are to mount."""

import os

from anyon.clock import Clock
from anyon.config import Settings
from anyon.services.mounts import PLACE, Mounts
from anyon.services.trees import Owner
from anyon.storage.mounts.gcsfuse import Gcsfuse
from anyon.storage.mounts.mounter import Mounter, MountSpec
from anyon.storage.mounts.profiles import PROFILES
from anyon.storage.mounts.rclone import Rclone
from anyon.telemetry import Metrics


def mounter(settings: Settings) -> Mounter:
    """Return the mounter that is set; ``checkpoints`` has none."""
    return Rclone() if settings.storage == "rclone" else Gcsfuse()


def spec(settings: Settings, *, uid: int, gid: int) -> MountSpec:
    """Return what is to be mounted; an emulator is used when STORAGE_EMULATOR_HOST is set."""
    bucket, _, prefix = settings.mount_bucket.removeprefix("gs://").partition("/")
    endpoint = os.environ.get("STORAGE_EMULATOR_HOST") or None
    if endpoint is not None and "://" not in endpoint:
        endpoint = f"http://{endpoint}"
    return MountSpec(
        bucket=bucket,
        prefix=prefix.strip("/"),
        place=settings.home / PLACE,
        work=settings.home / "mount",
        profile=PROFILES[settings.mount_profile],
        uid=uid,
        gid=gid,
        endpoint=endpoint,
    )


def files_owner(settings: Settings, engine: str) -> Owner | None:
    """Return who a project's files belong to, None for the server's own user.

    Programs in Docker run as the image's user; elsewhere they run as the server's own.
    """
    uid = settings.container_uid
    return (uid, uid) if engine == "docker" and os.geteuid() == 0 else None


def mounts(settings: Settings, engine: str, *, clock: Clock, metrics: Metrics) -> Mounts:
    """Return this server's mount; without one, where it would be."""
    place = settings.home / PLACE
    if settings.storage == "checkpoints":
        return Mounts(place=place, clock=clock, metrics=metrics)
    uid, gid = files_owner(settings, engine) or (os.geteuid(), os.getegid())
    return Mounts(
        place=place,
        clock=clock,
        mounter=mounter(settings),
        spec=spec(settings, uid=uid, gid=gid),
        is_external=settings.mount_externally,
        metrics=metrics,
    )
