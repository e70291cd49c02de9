"""How a project stands towards saving: one of telemetry's ``CLASSES``."""

from datetime import datetime

from sqlalchemy import Connection

from anyon.db import leases as lease_rows
from anyon.domain.entities import Project
from anyon.domain.states import Phase


def class_of(project: Project, *, is_held: bool) -> str:
    """Return ``active`` for one that somebody holds, ``idle`` for another in memory, else ``stopped``."""
    if is_held:
        return "active"
    return "idle" if project.phase in {Phase.RUNNING, Phase.FROZEN} else "stopped"


def class_now(connection: Connection, project: Project, now: datetime) -> str:
    """Return the class of a project as recorded, by the leases that are there now."""
    held = {lease.project_id for lease in lease_rows.all_valid(connection, now)}
    return class_of(project, is_held=project.id in held)
