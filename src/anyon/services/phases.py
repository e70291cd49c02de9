"""A project's recorded phase: changed with its event, and read as what may be done and what a wake started from."""

from datetime import datetime

from sqlalchemy import Connection

from anyon.db import events as event_rows
from anyon.db import looks as look_rows
from anyon.db import projects as project_rows
from anyon.domain.entities import Project
from anyon.domain.errors import ConflictError
from anyon.domain.ids import ProjectId
from anyon.domain.states import Phase
from anyon.engines.engine import ContainerInfo, ContainerState
from anyon.services.archives import is_lost, owned_elsewhere

IN_USE = frozenset({Phase.RUNNING, Phase.CREATING})
UP = IN_USE | {Phase.FROZEN}
_CHANGING = frozenset({Phase.RUNNING, Phase.RESTORING})
"""From here on the files may change: what was seen of them before does not hold any more."""


def tier_of(recorded: Phase, info: ContainerInfo | None) -> str:
    """Return what a project is woken from, in the words of the metrics."""
    if info is not None and info.state is ContainerState.FROZEN:
        return "frozen"
    if recorded in {Phase.ARCHIVED, Phase.ARCHIVING, Phase.RESTORING}:
        return "archived"
    return "new" if recorded is Phase.CREATING else "stopped"


def check_acting(project: Project) -> None:
    """Raise ConflictError ``project_creating``, or ``owned_elsewhere``, for one that this server cannot act on."""
    if project.phase is Phase.CREATING:
        raise ConflictError(
            "the project is being created", code="project_creating", hint="Wait until it is there."
        )
    if is_lost(project):
        raise owned_elsewhere()


def record(
    connection: Connection,
    project_id: ProjectId,
    phase: Phase,
    now: datetime,
    *,
    reason: str,
    detail: str,
) -> bool:
    """Record an observed phase and its event; False, and nothing done, where it is no news."""
    found = project_rows.find(connection, project_id)
    if found is None or found.phase is phase or found.deleted_at is not None:
        return False
    project_rows.set_phase(connection, project_id, phase, now, reason=reason, detail=detail)
    event_rows.add(connection, project_id, f"phase.{phase}", now, reason=reason, detail=detail)
    if phase in _CHANGING:
        look_rows.forget(connection, project_id)
    return True
