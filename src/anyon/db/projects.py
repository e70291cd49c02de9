"""Queries on projects. A deleted project (a tombstone) is seen by no user's query."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, or_, select, update

from anyon.db.rows import all_of, columns, one_of, values, visible
from anyon.db.schema import members, projects
from anyon.domain.entities import Project
from anyon.domain.ids import ProjectId, UserId
from anyon.domain.states import Goal, Phase

_ALL = select(*columns(Project, projects))


def add(connection: Connection, project: Project) -> bool:
    """Record a project and its owner; False, and nothing done, when the owner has one of that name."""
    if _name_is_taken(connection, project.user_id, project.name):
        return False
    connection.execute(insert(projects).values(values(project, projects)))
    connection.execute(
        insert(members).values(
            project_id=project.id,
            user_id=project.user_id,
            role="owner",
            created_at=project.created_at,
        )
    )
    return True


def _name_is_taken(
    connection: Connection, user: UserId, name: str, but: ProjectId | None = None
) -> bool:
    query = select(projects.c.id).where(
        projects.c.user_id == user, projects.c.name == name, projects.c.deleted_at.is_(None)
    )
    found = connection.execute(query).scalar()
    return found is not None and found != but


def of_user(connection: Connection, user: UserId) -> Sequence[Project]:
    """Return the projects that a user may see, newest first."""
    query = _ALL.where(visible(user, projects.c.id))
    return all_of(connection, Project, query.order_by(projects.c.created_at.desc(), projects.c.id))


def get(connection: Connection, user: UserId, project: ProjectId) -> Project | None:
    """Return one project that a user may see."""
    query = _ALL.where(projects.c.id == project, visible(user, projects.c.id))
    return one_of(connection, Project, query)


def find(connection: Connection, project: ProjectId) -> Project | None:
    """Return one project, whoever's it is, tombstones too: for the server's own work only."""
    return one_of(connection, Project, _ALL.where(projects.c.id == project))


def change(
    connection: Connection, user: UserId, project: ProjectId, changes: dict[str, Any]
) -> bool:
    """Change fields; False, and nothing done, when another project of the owner has the new name."""
    found = get(connection, user, project)
    if found is None:
        return True
    name = changes.get("name", found.name)
    if _name_is_taken(connection, found.user_id, name, but=project):
        return False
    connection.execute(update(projects).where(projects.c.id == project).values(**changes))
    return True


def relocate(connection: Connection, project: ProjectId, path: str, now: datetime) -> None:
    """Record that a project's files are at *path* from now on."""
    changes = {"path": path, "updated_at": now}
    connection.execute(update(projects).where(projects.c.id == project).values(**changes))


def set_phase(
    connection: Connection,
    project: ProjectId,
    phase: Phase,
    now: datetime,
    *,
    reason: str = "",
    detail: str = "",
) -> None:
    """Record what was observed of a project's container."""
    connection.execute(
        update(projects)
        .where(projects.c.id == project)
        .values(phase=phase, phase_since=now, state_reason=reason, state_detail=detail)
    )


def was_active(connection: Connection, project: ProjectId, now: datetime) -> None:
    """Record that real work was done now."""
    connection.execute(update(projects).where(projects.c.id == project).values(last_active_at=now))


def want(
    connection: Connection, project: ProjectId, goal: Goal, *, instead_of: Collection[Goal]
) -> bool:
    """Record what is wanted of a living project's container, and say whether this call changed it."""
    query = update(projects).where(
        projects.c.id == project, projects.c.goal.in_(instead_of), projects.c.deleted_at.is_(None)
    )
    return connection.execute(query.values(goal=goal)).rowcount > 0


def was_set_up(connection: Connection, project: ProjectId, script: str, now: datetime) -> None:
    """Record that the setup *script* has done its work, unless it was changed meanwhile."""
    connection.execute(
        update(projects)
        .where(projects.c.id == project, projects.c.setup_script == script)
        .values(setup_completed_at=now)
    )


def must_be_set_up(connection: Connection, project: ProjectId) -> None:
    """Record that what the setup script did is not there any more."""
    connection.execute(
        update(projects).where(projects.c.id == project).values(setup_completed_at=None)
    )


def bury(connection: Connection, user: UserId, project: ProjectId, now: datetime) -> Project | None:
    """Make a project a tombstone, which frees its name, and return it; None when there is none."""
    if get(connection, user, project) is None:
        return None
    connection.execute(
        update(projects)
        .where(projects.c.id == project)
        .values(
            goal=Goal.DELETED,
            phase=Phase.DELETING,
            phase_since=now,
            state_reason="deleted_by_user",
            deleted_at=now,
            updated_at=now,
        )
    )
    return find(connection, project)


def tombstones(connection: Connection, user: UserId) -> Sequence[Project]:
    """Return a user's own deleted projects, the last deleted first."""
    query = _ALL.where(projects.c.user_id == user, projects.c.deleted_at.is_not(None))
    return all_of(connection, Project, query.order_by(projects.c.deleted_at.desc(), projects.c.id))


def expired(connection: Connection, before: datetime) -> Sequence[Project]:
    """Return all tombstones from before *before* of which nothing is left here."""
    query = _ALL.where(projects.c.deleted_at < before, projects.c.phase == Phase.ABSENT)
    return all_of(connection, Project, query)


def revive(connection: Connection, project: Project, now: datetime) -> bool:
    """Make a tombstone a project again, its files in the store only; False when its name is taken."""
    if _name_is_taken(connection, project.user_id, project.name):
        return False
    connection.execute(
        update(projects)
        .where(projects.c.id == project.id)
        .values(
            goal=Goal.RUNNING,
            phase=Phase.ARCHIVED,
            phase_since=now,
            state_reason="undeleted",
            state_detail="",
            deleted_at=None,
            last_active_at=now,
            updated_at=now,
        )
    )
    return True


def remove(connection: Connection, project: ProjectId) -> None:
    """Delete a project's record and all that belongs to it."""
    connection.execute(delete(projects).where(projects.c.id == project))


def take(
    connection: Connection, project: ProjectId, server: str, now: datetime, until: datetime
) -> str | None:
    """Let *server* alone act on a project until *until*; None, or the id of who has it already."""
    free = or_(
        projects.c.server_id.is_(None),
        projects.c.server_id == server,
        projects.c.server_until < now,
    )
    query = update(projects).where(projects.c.id == project, free)
    if connection.execute(query.values(server_id=server, server_until=until)).rowcount:
        return None
    found = select(projects.c.server_id).where(projects.c.id == project)
    return connection.execute(found).scalar() or ""


def keep(connection: Connection, server: str, taken: Sequence[ProjectId], until: datetime) -> None:
    """Hold on to what *server* has taken."""
    connection.execute(
        update(projects)
        .where(projects.c.id.in_(taken), projects.c.server_id == server)
        .values(server_until=until)
    )


def of_server(connection: Connection, server: str) -> Sequence[Project]:
    """Return all projects, tombstones too, that *server* was the last to act on."""
    return all_of(connection, Project, _ALL.where(projects.c.server_id == server))


def everything(connection: Connection) -> Sequence[Project]:
    """Return all projects, tombstones too, whoever's they are: for a recovery only."""
    return all_of(connection, Project, _ALL)


def living(connection: Connection) -> Sequence[Project]:
    """Return all projects that were not deleted, whoever's they are: for the server's own loops only."""
    return all_of(connection, Project, _ALL.where(projects.c.deleted_at.is_(None)))


def awake(connection: Connection) -> Sequence[Project]:
    """Return those of the living whose container is there with its memory, running or frozen.

    For loops that look often: the many that sleep cost nothing then.
    """
    there = (Phase.RUNNING, Phase.FROZEN)
    query = _ALL.where(projects.c.deleted_at.is_(None), projects.c.phase.in_(there))
    return all_of(connection, Project, query)
