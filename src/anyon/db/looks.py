"""Queries on looks: what was seen of a repository, kept for as long as nothing can have changed it.

Work removes them in the transaction that takes its lease, and a container that is seen to be up
again in the one that records it. So what is there still holds; nothing compares times.
"""

from datetime import datetime

from sqlalchemy import Connection, Integer, delete, insert, select, type_coerce

from anyon.db.schema import looks, projects
from anyon.domain.ids import ProjectId

MOST = 400
"""How many are kept of a project; the oldest go first."""


def find(connection: Connection, project: ProjectId, key: str) -> bytes | None:
    """Return what was seen, as it was kept."""
    query = select(looks.c.body).where(looks.c.project_id == project, looks.c.key == key)
    return connection.execute(query).scalar()


def keys(connection: Connection, project: ProjectId) -> frozenset[str]:
    """Return the keys of all that is kept of a project."""
    query = select(looks.c.key).where(looks.c.project_id == project)
    return frozenset(connection.execute(query).scalars())


def keep(
    connection: Connection,
    project: ProjectId,
    key: str,
    body: bytes,
    seen_at: datetime,
    *,
    is_lasting: bool,
    if_idle_since: datetime | None,
) -> bool:
    """Keep what was seen in place of what was kept before; False, and nothing done, where work came.

    *is_lasting* is what no work changes. *if_idle_since* is the project's last activity before the
    look; None where whoever looks knows that nothing can have come between.
    """
    query = select(projects.c.last_active_at).where(projects.c.id == project)
    active_at = connection.execute(query).scalar()
    if active_at is None or if_idle_since not in {None, active_at}:
        return False
    connection.execute(delete(looks).where(looks.c.project_id == project, looks.c.key == key))
    row = {"project_id": project, "key": key, "body": body}
    connection.execute(insert(looks).values(row | {"seen_at": seen_at, "is_lasting": is_lasting}))
    newest = (
        select(looks.c.key)
        .where(looks.c.project_id == project)
        .order_by(looks.c.seen_at.desc(), looks.c.key)
        .limit(MOST)
    )
    connection.execute(
        delete(looks).where(looks.c.project_id == project, looks.c.key.not_in(newest))
    )
    return True


def forget(connection: Connection, project: ProjectId) -> None:
    """Forget all that may not hold any more."""
    changing = type_coerce(looks.c.is_lasting, Integer) == 0
    connection.execute(delete(looks).where(looks.c.project_id == project, changing))


def forget_all(connection: Connection, project: ProjectId) -> None:
    """Forget what no work would have changed, too: the files are other ones now."""
    connection.execute(delete(looks).where(looks.c.project_id == project))
