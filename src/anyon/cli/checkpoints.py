"""``anyon checkpoint`` and the commands on a project's life."""

from typing import TYPE_CHECKING, Annotated

import typer

from anyon.cli.printing import say, show_json, show_table
from anyon.cli.sessions import Json, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyon.sdk.clients import Client
    from anyon.sdk.lives import Awake, Checkpoint, Event, Verified

app = typer.Typer(help="Checkpoints: saved states of a project's files.", no_args_is_help=True)
ProjectName = Annotated[str, typer.Argument(help="The project's name or id.", show_default=False)]


@app.command("list")
def list_all(ctx: typer.Context, project: ProjectName, as_json: Json = False) -> None:
    """List a project's checkpoints, newest first; wakes nothing."""

    async def find(client: "Client") -> "Sequence[Checkpoint]":
        return await client.lives.checkpoints((await client.projects.find(project)).id)

    found = ask(ctx, find, as_json=as_json)
    if as_json:
        show_json(list(found))
        return
    rows = [
        (one.id, f"{one.at:%Y-%m-%d %H:%M:%S}", one.reason, str(one.files), _size(one.size_bytes))
        for one in found
    ]
    show_table(["id", "at", "reason", "files", "size"], rows)


@app.command()
def save(ctx: typer.Context, project: ProjectName, as_json: Json = False) -> None:
    """Save a project now; done once that is confirmed in the store."""

    async def work(client: "Client") -> "Checkpoint":
        return await client.lives.save((await client.projects.find(project)).id)

    taken = ask(ctx, work, as_json=as_json, words="Saving …")
    if as_json:
        show_json(taken)
    else:
        say(f"saved {taken.files} files ({_size(taken.size_bytes)}) as {taken.id}")
        if taken.unreadable:
            say(f"{taken.unreadable} files or directories could not be read: they are not in it")
        if "system" not in taken.trees:
            say("what is installed outside the project is not in it (`anyon doctor` says why)")


@app.command()
def restore(
    ctx: typer.Context,
    project: ProjectName,
    checkpoint: Annotated[str, typer.Argument(help="The checkpoint's id.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Go back to a checkpoint; what is there now is saved first."""

    async def work(client: "Client") -> "Checkpoint":
        found = await client.projects.find(project)
        return await client.lives.restore(found.id, checkpoint)

    chosen = ask(ctx, work, as_json=as_json, words="Restoring …")
    if as_json:
        show_json(chosen)
    else:
        say(f"{project} is as it was at {chosen.at:%Y-%m-%d %H:%M:%S}")


@app.command()
def verify(
    ctx: typer.Context,
    project: ProjectName,
    checkpoint: Annotated[str, typer.Argument(help="The checkpoint's id.", show_default=False)],
    read_data: Annotated[
        bool, typer.Option("--read-data", help="Read every byte, not only the structure.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a checkpoint where it lies; wakes nothing. Ends with 1 if it is damaged."""

    async def work(client: "Client") -> "Verified":
        found = await client.projects.find(project)
        return await client.lives.verify(found.id, checkpoint, read_data=read_data)

    seen = ask(ctx, work, as_json=as_json, words="Verifying …")
    if as_json:
        show_json(seen)
    else:
        for problem in seen.problems:
            say(problem)
        outcome = f"{len(seen.problems)} damages" if seen.problems else "whole"
        say(f"{seen.files} files in {seen.packs} packs: {outcome}")
    if seen.problems:
        raise typer.Exit(1)


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


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
