"""Which mounter: the only place that names the drivers, and what they are to mount."""

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from anyon.clock import Clock
from anyon.config import STORAGE_FILE, Settings, load
from anyon.domain.errors import InvalidInputError
from anyon.services.mounts import PLACE, Mounts
from anyon.services.trees import Owner
from anyon.storage.mounts import gcsfuse, programs
from anyon.storage.mounts.gcsfuse import Gcsfuse
from anyon.storage.mounts.mounter import Mounter, MountInfo, MountSpec
from anyon.storage.mounts.profiles import PROFILES
from anyon.storage.mounts.rclone import Rclone
from anyon.telemetry import Metrics

__all__ = [
    "PLACE",
    "MountInfo",
    "bring_up",
    "files_owner",
    "foreground",
    "keep",
    "look",
    "mounter",
    "mounts",
    "prepare",
    "put_back",
    "spec",
    "take_down",
]

_NONE = "checkpoints"
_BEFORE = "before"
"""The ending of the copy of what was set before a mount was."""
_REPLACED = "rolled-back"
"""The ending of the copy of what a rollback has replaced."""


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
    return Mounts(
        place=place,
        clock=clock,
        mounter=mounter(settings),
        spec=_spec_for(settings, engine),
        is_external=settings.mount_externally,
        metrics=metrics,
    )


async def look(settings: Settings) -> MountInfo:
    """Return what this home's mount is like; never changes anything."""
    return await mounter(settings).look(spec(settings, uid=0, gid=0))


async def bring_up(settings: Settings, *, engine: str) -> MountInfo:
    """Mount this home's bucket, if it is not; see ``Mounter.mount``."""
    return await mounter(settings).mount(_spec_for(settings, engine))


async def take_down(settings: Settings, *, is_forced: bool) -> None:
    """Unmount it; see ``Mounter.unmount``."""
    await mounter(settings).unmount(spec(settings, uid=0, gid=0), is_forced=is_forced)


def prepare(settings: Settings, *, engine: str) -> Path:
    """Write gcsfuse's configuration file and make the mountpoint, for a mount that is systemd's.

    InvalidInputError ``mounter_without_file`` for another mounter.
    """
    if settings.storage != "gcsfuse":
        raise InvalidInputError(
            f"storage {settings.storage} has no configuration file", code="mounter_without_file"
        )
    wanted = _spec_for(settings, engine)
    wanted.place.mkdir(parents=True, exist_ok=True, mode=0o755)
    return gcsfuse.write(wanted)


def foreground(
    settings: Settings, *, engine: str, program: str = ""
) -> tuple[Sequence[str], Mapping[str, str]]:
    """Return what mounts this home's bucket and stays, for a unit, with its environment; the mountpoint is made.

    *program* is the mounter's own, where it is not found by name. InvalidInputError
    ``mounter_without_foreground`` for gcsfuse, which takes a file and its own flag instead;
    MissingError as ``Mounter.check``; ConflictError ``mountpoint_not_empty``.
    """
    if settings.storage != "rclone":
        raise InvalidInputError(
            f"storage {settings.storage} is not mounted by this command",
            code="mounter_without_foreground",
            hint="gcsfuse's unit runs gcsfuse itself, over what `anyon mount prepare` writes.",
        )
    driver = Rclone(program) if program else Rclone()
    driver.check()
    wanted = _spec_for(settings, engine)
    programs.refuse_full(wanted.place)
    return driver.foreground(wanted)


def keep(settings: Settings, *, storage: str, bucket: str, profile: str) -> Settings:
    """Write the home's own ``storage.toml`` and return the settings as they are with it.

    ``checkpoints`` removes the file. What was set before the first mount is kept beside it, for
    ``put_back``. SettingsError for what cannot be; then nothing is changed.
    """
    path = settings.home / STORAGE_FILE
    wanted = {"storage": storage, "mount_bucket": bucket, "mount_profile": profile}
    given = {f"ANYON_{key.upper()}": value for key, value in wanted.items()}
    found = load({**os.environ, **given})
    if storage == "checkpoints":
        path.unlink(missing_ok=True)
        return found
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not _names_mount(path):
        _copy(path, _beside(path, _BEFORE))
    fresh = path.with_suffix(".new")
    fresh.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in wanted.items()))
    fresh.replace(path)
    return found


def put_back(settings: Settings) -> Path | None:
    """Make ``storage.toml`` what it was before a mount was set, byte by byte; absent if it was.

    Return where what it replaces is kept, None where there was none. A repeat changes nothing.
    """
    path = settings.home / STORAGE_FILE
    before, replaced = _beside(path, _BEFORE), _beside(path, _REPLACED)
    is_put_back = not _names_mount(path) if path.exists() else not before.exists()
    if is_put_back:
        return None
    if path.exists():
        _copy(path, replaced)
    if before.exists():
        before.replace(path)
    else:
        path.unlink()
    return replaced if replaced.exists() else None


def _names_mount(path: Path) -> bool:
    """Say whether a ``storage.toml`` by itself, whatever the environment says, sets a mount."""
    if not path.exists():
        return False
    return bool(tomllib.loads(path.read_text(encoding="utf-8")).get("storage", _NONE) != _NONE)


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}")


def _copy(source: Path, target: Path) -> None:
    """Make *target* the same as *source*, absent too, whole or not at all."""
    if not source.exists():
        target.unlink(missing_ok=True)
        return
    fresh = _beside(target, "new")
    fresh.write_bytes(source.read_bytes())
    fresh.replace(target)


def _spec_for(settings: Settings, engine: str) -> MountSpec:
    uid, gid = files_owner(settings, engine) or (os.geteuid(), os.getegid())
    return spec(settings, uid=uid, gid=gid)
