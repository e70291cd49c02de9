"""systemd's unit for a mounted bucket: the plan's, with today's options in a file of their own."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class MountUnit:
    """What the mount's unit needs to say. ``program`` is gcsfuse's own path."""

    program: Path
    unmounter: Path
    bucket: str
    place: Path
    config: Path
    profile: str


def settings(unit: MountUnit, bucket: str) -> dict[str, str]:
    """Return what the server is told of a mount that is systemd's."""
    return {
        "ANYON_STORAGE": "gcsfuse",
        "ANYON_MOUNT_BUCKET": bucket,
        "ANYON_MOUNT_PROFILE": unit.profile,
        "ANYON_MOUNT_EXTERNALLY": "true",
    }
