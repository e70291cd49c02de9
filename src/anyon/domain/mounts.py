"""What a mount of a bucket is like, and what is to be done about it; pure."""

from enum import StrEnum


class MountState(StrEnum):
    """What a look at a mount has found.

    ABSENT: nothing is mounted there. ALIVE: it answered a question that only the bucket can
    answer. DEAD: mounted, but whoever served it is gone; it never comes back by itself. SILENT:
    no answer in time; it may come back.
    """

    ABSENT = "absent"
    ALIVE = "alive"
    DEAD = "dead"
    SILENT = "silent"


def must_remount(state: MountState, *, is_external: bool) -> bool:
    """Say whether this server mounts anew: never one that is only SILENT, for it has all that was written.

    *is_external*: another service mounts, and this server only watches.
    """
    return state in {MountState.ABSENT, MountState.DEAD} and not is_external


def is_stale(inside: str | None, now: str | None) -> bool:
    """Say whether a container shows an earlier life of the mount: its device *inside* is not that of *now*.

    What is not known (None) is no reason to stop anybody's work.
    """
    return inside is not None and now is not None and inside != now
