"""Which projects are restored for proof, and when: pure decisions."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from anyon.domain.ids import ProjectId

_DAY = timedelta(days=1)


def last_night(now: datetime, hour: int) -> datetime:
    """Return when it was *hour* (UTC) the last time."""
    tonight = now.replace(hour=hour, minute=0, second=0, microsecond=0)
    return tonight if tonight <= now else tonight - _DAY


def chosen(
    projects: Iterable[tuple[ProjectId, datetime]],
    tried_at: Mapping[ProjectId, datetime],
    *,
    now: datetime,
    hour: int,
    most: int,
) -> list[ProjectId]:
    """Return which of *projects* (with when each was made) to prove in this round, at most *most*.

    A round is due once after each *hour*. Those come first that were never tried, then those
    whose last try is the longest ago; so all have their turn. A project made since then waits.
    """
    night = last_night(now, hour)
    done = sum(1 for at in tried_at.values() if at >= night)
    waiting = [
        (tried_at.get(project), made_at, project)
        for project, made_at in projects
        if made_at < night and (project not in tried_at or tried_at[project] < night)
    ]
    waiting.sort(key=lambda row: (row[0] is not None, row[0] or row[1], row[2]))
    return [project for _, _, project in waiting[: max(0, most - done)]]
