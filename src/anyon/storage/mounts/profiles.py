"""Named sets of options for a mount: the plan's first values, and those it is tuned to later."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Options that every mounter has in some form. Lengths are seconds; 0 connections is no limit.

    ``max_retry_sleep`` None is the program's own. ``entries`` is how many files' metadata are
    kept. ``file_mode`` is what all files have: a bucket keeps no modes.
    """

    name: str
    dir_mode: int
    file_mode: int
    metadata_ttl: int
    list_ttl: int
    connections: int
    entries: int
    max_retry_sleep: int | None = None


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "plan": Profile(
            name="plan",
            dir_mode=0o755,
            file_mode=0o644,
            metadata_ttl=60,
            list_ttl=60,
            connections=100,
            entries=20_000,
        ),
        # Files are executable here: with 0644 no script, hook or program of a project could be started.
        "tuned": Profile(
            name="tuned",
            dir_mode=0o755,
            file_mode=0o755,
            metadata_ttl=300,
            list_ttl=300,
            connections=200,
            entries=100_000,
            max_retry_sleep=30,
        ),
    }
)
"""``plan``: as the plan first mounts. ``tuned``: its later values, with executable files."""
