"""How everything that the caller may see stands, at one moment."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class ProjectStatus(_Model):
    """One project. ``tasks`` counts its tasks by status, ``leases`` who holds it awake by reason.

    ``saved_at`` is the moment of its last saved state; ``unsaved_seconds`` is how long it has had
    work that no checkpoint holds: 0 where all is saved, null where none are kept.
    """

    id: UUID
    name: str
    goal: str
    phase: str
    phase_since: datetime
    reason: str
    last_active_at: datetime
    tasks: dict[str, int]
    processes: int
    leases: dict[str, int]
    saved_at: datetime | None
    unsaved_seconds: float | None
    next_step: str | None
    next_step_at: datetime | None
    position: int | None


class Status(_Model):
    """The server and the caller's projects, those first in which anything happened last."""

    version: str
    at: datetime
    projects: list[ProjectStatus]
