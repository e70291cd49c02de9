"""systemd's units for a mounted bucket, one for each mounter: the plan's, with today's options in a file of their own."""

from dataclasses import dataclass
from pathlib import Path

GCSFUSE = "gcsfuse-anyon.service"
RCLONE = "rclone-anyon.service"


@dataclass(frozen=True, slots=True, kw_only=True)
class MountUnit:
    """What the mount's unit needs to say. ``mounter`` is gcsfuse or rclone, ``program`` its own path."""

    program: Path
    unmounter: Path
    bucket: str
    place: Path
    config: Path
    profile: str
    mounter: str = "gcsfuse"

    @property
    def name(self) -> str:
        """The unit's name."""
        return RCLONE if self.mounter == "rclone" else GCSFUSE

    @property
    def other(self) -> str:
        """The unit that would mount at the same place."""
        return GCSFUSE if self.mounter == "rclone" else RCLONE


def settings(unit: MountUnit, bucket: str) -> dict[str, str]:
    """Return what the server is told of a mount that is systemd's."""
    return {
        "ANYON_STORAGE": unit.mounter,
        "ANYON_MOUNT_BUCKET": bucket,
        "ANYON_MOUNT_PROFILE": unit.profile,
        "ANYON_MOUNT_EXTERNALLY": "true",
    }
