"""``anyon exec``."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from anyon.cli import outputs
from anyon.cli.bars import watched
from anyon.cli.printing import say, show_json
from anyon.cli.sessions import Json, ProjectName, ask

if TYPE_CHECKING:
    from anyon.sdk.clients import Client
    from anyon.sdk.models import ExecutionProcess


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("exec", context_settings={"ignore_unknown_options": True})(execute)


def execute(
    *,
    ctx: typer.Context,
    project: ProjectName,
    argv: Annotated[
        list[str], typer.Argument(help="The command; write -- before it.", show_default=False)
    ],
    cwd: Annotated[
        str | None, typer.Option(help="Directory inside; default /workspace.", show_default=False)
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, repeatable.", show_default=False)
    ] = None,
    stdin: Annotated[bool, typer.Option(help="Give it all of our standard input.")] = False,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds after which it is ended.", show_default=False)
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not wait for it.")] = False,
    as_json: Json = False,
) -> None:
    """Run a command in a project's container and end with its exit code."""
    from anyon.sdk.requests import Exec  # noqa: PLC0415 - start-up stays quick

    command = Exec(
        argv=argv,
        cwd=cwd,
        env=_environment(env or []),
        stdin=sys.stdin.read() if stdin else None,
        timeout=timeout,
    )

    async def work(client: "Client") -> "tuple[ExecutionProcess, dict[str, str]]":
        found = await client.projects.find(project)
        call = client.projects.exec(found.id, command)
        # Only where its files have to come back first is there anything to see.
        process = await watched(client, found.id, call, words="Waking", quiet=as_json, is_late=True)
        if detach:
            return process, {}
        if as_json:
            output = await outputs.collect(client, process.id, follow=True)
            return await client.processes.get(process.id), output
        return await outputs.follow(client, process.id), {}

    process, output = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json({"process": process, **output})
    elif detach:
        say(str(process.id))
    if not detach and process.exit_code != 0:
        raise typer.Exit(1 if process.exit_code is None else process.exit_code)


def _environment(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair[1:]:
            raise typer.BadParameter(f"--env {pair}: write NAME=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)
