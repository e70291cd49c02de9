"""Queries on events."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select

from anyon.db.rows import all_of, columns, visible
from anyon.db.schema import events
from anyon.domain.entities import Event
from anyon.domain.ids import ProjectId, UserId
from anyon.telemetry.requests import current_request_id

CREATED = "project.created"


def add(
    connection: Connection,
    project: ProjectId,
    kind: str,
    now: datetime,
    *,
    reason: str = "",
    detail: str = "",
) -> None:
    """Record that something happened to a project, with the request that it came of, if any."""
    connection.execute(
        insert(events).values(
            project_id=project,
            kind=kind,
            reason=reason,
            detail=detail,
            at=now,
            request_id=current_request_id(),
        )
    )


def of_project(
    connection: Connection, user: UserId, project: ProjectId, *, after: int = 0, limit: int = 500
) -> Sequence[Event]:
    """Return up to *limit* events after the sequence number *after*, oldest first."""
    query = select(*columns(Event, events)).where(
        events.c.project_id == project,
        events.c.sequence > after,
        visible(user, events.c.project_id),
    )
    return all_of(connection, Event, query.order_by(events.c.sequence).limit(limit))


def latest(
    connection: Connection, kinds: Sequence[str], *, project: ProjectId | None = None
) -> dict[tuple[ProjectId, str], datetime]:
    """Return when each of *kinds* last happened, by project and kind; of one project, or of all."""
    query = (
        select(events.c.project_id, events.c.kind, func.max(events.c.at))
        .where(events.c.kind.in_(kinds))
        .group_by(events.c.project_id, events.c.kind)
    )
    if project is not None:
        query = query.where(events.c.project_id == project)
    return {(ProjectId(row[0]), row[1]): row[2] for row in connection.execute(query)}


def projects_with(connection: Connection, kind: str, reason: str) -> set[ProjectId]:
    """Return the projects to which such a thing has happened."""
    query = select(events.c.project_id).where(events.c.kind == kind, events.c.reason == reason)
    return {ProjectId(one) for one in connection.execute(query.distinct()).scalars()}


def prune(
    connection: Connection, project: ProjectId, *, before: datetime, keep: int, at_most: int
) -> int:
    """Remove up to *at_most* of a project's events from before that time, the oldest first; return how many.

    Its last *keep* stay however old, and so does the last of each kind: what was last done with it
    is looked up there. How it came to be (``project.created``) stays too.
    """
    of_it = events.c.project_id == project
    kept = select(events.c.sequence).where(of_it).order_by(events.c.sequence.desc()).limit(keep)
    last = select(func.max(events.c.sequence)).where(of_it).group_by(events.c.kind)
    old = (
        select(events.c.sequence)
        .where(
            of_it,
            events.c.at < before,
            events.c.kind != CREATED,
            events.c.sequence.not_in(kept),
            events.c.sequence.not_in(last),
        )
        .order_by(events.c.sequence)
        .limit(at_most)
    )
    return connection.execute(delete(events).where(events.c.sequence.in_(old))).rowcount
