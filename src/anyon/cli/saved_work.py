"""``anyon project saved`` and ``bring-back``: work that a cleanup would have dropped."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from anyon.cli.printing import say, show_json, show_table
from anyon.cli.sessions import Json, ProjectName, ask

if TYPE_CHECKING:
    from anyon.sdk.clients import Client
    from anyon.sdk.saved_work import SavedWork


def saved(ctx: typer.Context, project: ProjectName, as_json: Json = False) -> None:
    """List the unmerged work that was saved when worktrees were removed."""

    async def find(client: "Client") -> "Sequence[SavedWork]":
        return await client.saved_work.list((await client.projects.find(project)).id)

    found = ask(ctx, find, as_json=as_json)
    if as_json:
        show_json(list(found))
        return
    rows = [(f"{one.saved_at:%Y-%m-%d %H:%M:%S}", one.attempt_id, one.ref) for one in found]
    show_table(["saved at", "attempt", "ref"], rows)


def bring_back(
    ctx: typer.Context,
    project: ProjectName,
    ref: Annotated[str, typer.Argument(help="As `anyon project saved` lists it.")],
    branch: Annotated[str, typer.Option(help="The new branch.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Make a branch of saved work."""
    from anyon.sdk.requests import RestoreWork  # noqa: PLC0415 - start-up stays quick

    wanted = RestoreWork(ref=ref, branch=branch)

    async def work(client: "Client") -> None:
        await client.saved_work.restore((await client.projects.find(project)).id, wanted)

    ask(ctx, work, as_json=as_json, words="Bringing it back …")
    if as_json:
        show_json({"branch": branch})
    else:
        say(f"{project}: {ref} is branch {branch}")
