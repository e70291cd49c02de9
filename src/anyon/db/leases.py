"""Queries on leases."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from anyon.db.rows import all_of, columns, values
from anyon.db.schema import leases, projects
from anyon.domain.entities import Lease
from anyon.domain.ids import LeaseId


def add(connection: Connection, lease: Lease) -> None:
    """Record a lease."""
    connection.execute(insert(leases).values(values(lease, leases)))


def renew(connection: Connection, held: Sequence[LeaseId], until: datetime) -> None:
    """Let leases last until *until*."""
    connection.execute(update(leases).where(leases.c.id.in_(held)).values(expires_at=until))


def remove(connection: Connection, lease: LeaseId) -> None:
    """Give a lease back."""
    connection.execute(delete(leases).where(leases.c.id == lease))


def remove_former(connection: Connection, server: str, *, but: str) -> None:
    """Give back every lease on a project of *server* whose holder does not begin with *but*."""
    mine = select(projects.c.id).where(projects.c.server_id == server)
    others = leases.c.holder.not_like(f"{but}%")
    connection.execute(delete(leases).where(leases.c.project_id.in_(mine), others))


def all_valid(connection: Connection, now: datetime) -> Sequence[Lease]:
    """Return every project's leases that have not expired."""
    return all_of(
        connection, Lease, select(*columns(Lease, leases)).where(leases.c.expires_at > now)
    )


def remove_expired(connection: Connection, now: datetime) -> int:
    """Delete what has expired and say how many."""
    return connection.execute(delete(leases).where(leases.c.expires_at <= now)).rowcount
