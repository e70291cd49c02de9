"""The commands on a project's life: why it is awake, what happened, what can be brought back."""

from typing import TYPE_CHECKING

import typer

from anyon.cli.printing import say, show_json, show_table
from anyon.cli.sessions import Json, ProjectName, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyon.sdk.clients import Client
    from anyon.sdk.lives import Awake, Event


def why(ctx: typer.Context, project: ProjectName, as_json: Json = False) -> None:
    """Say who holds a project awake, and when it steps down next; wakes nothing."""

    async def find(client: "Client") -> "Awake":
        return await client.lives.awake((await client.projects.find(project)).id)

    found = ask(ctx, find, as_json=as_json)
    if as_json:
        show_json(found)
        return
    say(f"{found.phase} since {found.phase_since:%Y-%m-%d %H:%M:%S} ({found.reason})")
    for lease in found.leases:
        until = f", until {lease.expires_at:%Y-%m-%d %H:%M} ({lease.id})" if lease.is_hold else ""
        since = f"{lease.created_at:%H:%M:%S}"
        say(f"held by {lease.holder}: {lease.reason}, since {since}{until}")
    if found.files_percent is not None:
        say(f"its files come back from the store: {found.files_percent} % are here")
    if found.position is not None:
        say(f"waits for a place to run: number {found.position} in the line")
    if found.next_step and found.next_step_at:
        say(f"next: {found.next_step} at {found.next_step_at:%Y-%m-%d %H:%M:%S} UTC")


def events(ctx: typer.Context, project: ProjectName, as_json: Json = False) -> None:
    """List what happened to a project, oldest first; wakes nothing."""

    async def find(client: "Client") -> "Sequence[Event]":
        return await client.lives.events((await client.projects.find(project)).id)

    found = ask(ctx, find, as_json=as_json)
    if as_json:
        show_json(list(found))
        return
    rows = [(f"{one.at:%Y-%m-%d %H:%M:%S}", one.kind, one.reason, one.detail) for one in found]
    show_table(["at", "what", "reason", "detail"], rows)


def deleted(ctx: typer.Context, as_json: Json = False) -> None:
    """List the deleted projects that can be brought back."""
    found = ask(ctx, lambda client: client.lives.deleted(), as_json=as_json)
    if as_json:
        show_json(list(found))
    else:
        show_table(["id", "name"], [(one.id, one.name) for one in found])


def undelete(ctx: typer.Context, project: ProjectName, as_json: Json = False) -> None:
    """Bring a deleted project back, by its name or id, while its checkpoints are kept."""

    async def work(client: "Client") -> None:
        named = [one for one in await client.lives.deleted() if project in {one.name, str(one.id)}]
        await client.lives.undelete(named[0].id if named else project)

    ask(ctx, work, as_json=as_json)
    if as_json:
        show_json({"restored": project})
    else:
        say(f"{project} is back; its files come with its next work")
