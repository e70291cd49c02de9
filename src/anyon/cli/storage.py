"""``anyon storage``: what projects have in the store; checked, collected, proven. Wakes nothing."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anyon.cli.bars import watched
from anyon.cli.printing import byte_size, say, show_json, show_table
from anyon.cli.sessions import Json, ask

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from anyon.sdk.checkpoints import Standing
    from anyon.sdk.clients import Client

app = typer.Typer(
    help="The store: what it holds of projects, and whether that can be had back.",
    no_args_is_help=True,
)
Name = Annotated[str | None, typer.Argument(help="The project's name or id.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="All of your projects, one after the other.")]


def _each(
    ctx: typer.Context,
    project: str | None,
    is_all: bool,
    call: "Callable[[Client, UUID], Coroutine[Any, Any, Any]]",
    *,
    words: str,
    as_json: bool,
) -> list[Any]:
    """Return what *call* returns for the project, or for each of all."""
    if (project is None) is not is_all:
        raise typer.BadParameter("give a project, or --all")

    async def work(client: "Client") -> list[Any]:
        if project is not None:
            chosen = [await client.projects.find(project)]
        else:
            chosen = list(await client.projects.list())
        return [
            await watched(
                client,
                one.id,
                call(client, one.id),
                words=f"{words} {one.name}",
                quiet=as_json,
            )
            for one in chosen
        ]

    return ask(ctx, work, as_json=as_json)


@app.command()
def usage(ctx: typer.Context, project: Name = None, as_json: Json = False) -> None:
    """Show what projects take in the store, and when a restore of each was last proven."""

    async def find(client: "Client") -> "Sequence[Standing]":
        if project is None:
            return await client.storage.usage()
        return [await client.storage.of((await client.projects.find(project)).id)]

    found = ask(ctx, find, as_json=as_json)
    if as_json:
        show_json(list(found))
        return
    rows = [
        (
            one.project,
            one.checkpoints,
            f"{one.latest_at:%Y-%m-%d %H:%M}" if one.latest_at else "never",
            byte_size(one.size_bytes),
            byte_size(one.stored_bytes),
            byte_size(one.lent_bytes),
            byte_size(one.borrowed_bytes),
            f"{one.proven_at:%Y-%m-%d %H:%M}" if one.proven_at else "never",
        )
        for one in found
    ]
    show_table(
        ["project", "checkpoints", "latest", "files", "stored", "lent", "borrowed", "proven"], rows
    )


@app.command()
def verify(
    ctx: typer.Context,
    project: Name = None,
    is_all: All = False,
    read_data: Annotated[
        bool, typer.Option("--bytes", help="Read every byte, not only the structure.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check all checkpoints of a project, or of all. Damage is named by file. Ends with 1 if there is any."""
    found = _each(
        ctx,
        project,
        is_all,
        lambda client, one: client.storage.verify(one, read_data=read_data),
        words="Verifying",
        as_json=as_json,
    )
    if as_json:
        show_json(found)
    else:
        for one in found:
            for problem in one.problems:
                say(problem)
            for damage in one.damaged:
                where = f"whole in {damage.intact}" if damage.intact else "whole nowhere before"
                say(f"{damage.checkpoint}: {damage.path} is {where}")
            outcome = f"{len(one.problems)} damages" if one.problems else "whole"
            say(f"{one.project}: {one.checkpoints} checkpoints in {one.packs} packs: {outcome}")
    if any(one.problems for one in found):
        raise typer.Exit(1)


@app.command()
def collect(
    ctx: typer.Context, project: Name = None, is_all: All = False, as_json: Json = False
) -> None:
    """Drop old checkpoints as the retention says, and what nothing needs any more; the server does so by itself."""
    found = _each(
        ctx,
        project,
        is_all,
        lambda client, one: client.storage.collect(one),
        words="Collecting",
        as_json=as_json,
    )
    if as_json:
        show_json(found)
        return
    for one in found:
        say(
            f"{one.project}: {one.checkpoints} checkpoints and {one.packs} packs"
            f" ({byte_size(one.bytes)}) removed"
        )


@app.command()
def drill(
    ctx: typer.Context, project: Name = None, is_all: All = False, as_json: Json = False
) -> None:
    """Restore the last checkpoint to a place aside and compare every byte. Ends with 1 if that fails."""
    found = _each(
        ctx,
        project,
        is_all,
        lambda client, one: client.storage.drill(one),
        words="Proving",
        as_json=as_json,
    )
    if as_json:
        show_json(found)
    else:
        for one in found:
            for problem in one.problems:
                say(problem)
            outcome = one.skipped or ("proven" if one.proven else "NOT PROVEN")
            say(
                f"{one.project}: {outcome}: {one.files} files, {byte_size(one.bytes)}"
                f" in {one.seconds:.1f} s"
            )
    if any(one.problems for one in found):
        raise typer.Exit(1)
