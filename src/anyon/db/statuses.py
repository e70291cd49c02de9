"""Counts over all of a user's projects, for looking at them at once."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import Connection, func, select

from anyon.db.rows import visible
from anyon.db.schema import IS_OPEN, events, processes, tasks
from anyon.domain.ids import ProjectId, UserId
from anyon.domain.states import ProcessStatus, TaskStatus


def task_counts(
    connection: Connection, user: UserId
) -> Mapping[ProjectId, Mapping[TaskStatus, int]]:
    """Return how many tasks of each project stand where on the board."""
    query = (
        select(tasks.c.project_id, tasks.c.status, func.count())
        .where(visible(user, tasks.c.project_id))
        .group_by(tasks.c.project_id, tasks.c.status)
    )
    found: dict[ProjectId, dict[TaskStatus, int]] = {}
    for project, status, count in connection.execute(query):
        found.setdefault(ProjectId(project), {})[status] = count
    return found


def running_counts(connection: Connection, user: UserId) -> Mapping[ProjectId, int]:
    """Return how many processes of each project run."""
    query = (
        select(processes.c.project_id, func.count())
        .where(
            IS_OPEN,
            processes.c.status == ProcessStatus.RUNNING,
            visible(user, processes.c.project_id),
        )
        .group_by(processes.c.project_id)
    )
    return {ProjectId(project): count for project, count in connection.execute(query)}


def last_saves(
    connection: Connection, projects: Collection[ProjectId]
) -> Mapping[ProjectId, datetime]:
    """Return when each of *projects* last had a checkpoint made, as recorded; one without is left out."""
    query = (
        select(events.c.project_id, func.max(events.c.at).label("at"))
        .where(events.c.project_id.in_(projects), events.c.kind == "checkpoint.saved")
        .group_by(events.c.project_id)
    )
    return {ProjectId(project): at for project, at in connection.execute(query)}
