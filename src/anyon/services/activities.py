"""What is going on with projects in the store right now, for whoever watches: a restore, a proof.

Kept in memory: it says how far something is, and whoever started it gets the outcome.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from anyon.clock import Clock
from anyon.domain.ids import ProjectId

WAKE = "wake"
"""What work that waits for files to come back is told of."""


@dataclass(slots=True, eq=False)
class Activity:
    """One piece of work; ``total_bytes`` is 0 while that is not known."""

    what: str
    """``wake``, ``restore``, ``fork``, ``verify``, ``collect``, ``drill`` or ``save``."""
    started_at: datetime
    done_bytes: int = 0
    total_bytes: int = 0

    @property
    def percent(self) -> int | None:
        """How much of it is done, None while it is not known of how much."""
        return self.done_bytes * 100 // self.total_bytes if self.total_bytes else None

    def progress(self, done_bytes: int, total_bytes: int) -> None:
        """Tell how far it is; may be called from any thread."""
        self.total_bytes = total_bytes
        self.done_bytes = min(done_bytes, total_bytes)


class Activities:
    """Who does what with which project, by this server."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._found: dict[ProjectId, list[Activity]] = {}

    @contextmanager
    def begun(self, project_id: ProjectId, what: str) -> Iterator[Activity]:
        """Show an activity as long as the block."""
        activity = Activity(what, self._clock.now())
        self._found.setdefault(project_id, []).append(activity)
        try:
            yield activity
        finally:
            self._found[project_id].remove(activity)
            if not self._found[project_id]:
                del self._found[project_id]

    def wake(self, project_id: ProjectId) -> int | None:
        """Return how many percent of a project's files a wake has back; None where none is under way."""
        return next((one.percent or 0 for one in self.of(project_id) if one.what == WAKE), None)

    def of(self, project_id: ProjectId) -> Sequence[Activity]:
        """Return what goes on with a project, the oldest first."""
        return tuple(self._found.get(project_id, ()))
