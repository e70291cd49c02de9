"""``anyon preview`` and ``anyon project ports``: servers that run inside projects."""

from typing import TYPE_CHECKING, Annotated

import typer

from anyon.cli.printing import say, show_json
from anyon.cli.sessions import Json, ProjectName, ask

if TYPE_CHECKING:
    from anyon.sdk.clients import Client
    from anyon.sdk.previews import ListeningPorts, PreviewLink


def add_to(app: typer.Typer) -> None:
    """Add ``preview``."""
    app.command()(preview)


def preview(
    ctx: typer.Context,
    project: ProjectName,
    port: Annotated[
        int, typer.Argument(help="The port it listens on inside.", min=1024, max=65535)
    ],
    open_it: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    as_json: Json = False,
) -> None:
    """Print a link to what listens on a port in a project; it opens once, within a minute."""

    async def work(client: "Client") -> "PreviewLink":
        return await client.previews.link((await client.projects.find(project)).id, port)

    link = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(link)
    else:
        say(link.url)
    if open_it:
        typer.launch(link.url)


def ports(ctx: typer.Context, project: ProjectName, as_json: Json = False) -> None:
    """List the ports that programs in a project listen on; wakes nothing."""

    async def work(client: "Client") -> "ListeningPorts":
        return await client.previews.ports((await client.projects.find(project)).id)

    found = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(found)
    elif found.ports is None:
        say("the project sleeps")
    else:
        for port in found.ports:
            say(str(port))
