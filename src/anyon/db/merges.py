"""Queries on merges."""

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select

from anyon.db.rows import all_of, columns, values, visible
from anyon.db.schema import attempts, merges
from anyon.domain.entities import Merge
from anyon.domain.ids import AttemptId, UserId


def add(connection: Connection, merge: Merge) -> None:
    """Record a merge, unless that commit of the attempt is recorded already."""
    query = select(merges.c.id).where(
        merges.c.attempt_id == merge.attempt_id, merges.c.commit == merge.commit
    )
    if connection.execute(query).first() is None:
        connection.execute(insert(merges).values(values(merge, merges)))


def of_attempt(connection: Connection, user: UserId, attempt: AttemptId) -> Sequence[Merge]:
    """Return an attempt's merges, newest first."""
    query = (
        select(*columns(Merge, merges))
        .join(attempts, attempts.c.id == merges.c.attempt_id)
        .where(merges.c.attempt_id == attempt, visible(user, attempts.c.project_id))
    )
    return all_of(connection, Merge, query.order_by(merges.c.created_at.desc(), merges.c.id))
