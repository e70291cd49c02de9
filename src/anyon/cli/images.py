"""``anyon image``."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from anyon.cli.printing import say, show_error, show_json
from anyon.cli.sessions import ExitCode, Json, exit_code, settings_or_exit

app = typer.Typer(
    help="Images: what a project's container is made from (docker).", no_args_is_help=True
)


@app.callback()
def group() -> None:
    """Keep ``build`` a command of its own, whatever else is in the group."""


@app.command()
def build(
    tag: Annotated[
        str | None, typer.Option(help="Its name; default: the setting image.", show_default=False)
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option(help="Install this agent's program (npm); repeatable.", show_default=False),
    ] = None,
    dockerfile: Annotated[
        Path | None, typer.Option(help="Build this instead; needs a registry.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a workspace image on this machine, without a registry, or from a Dockerfile."""
    settings = settings_or_exit(as_json)
    from anyon.domain.errors import AnyonError  # noqa: PLC0415 - other commands start without it

    async def work() -> str:
        from anyon.wiring.images import build as make  # noqa: PLC0415 - as above

        image = ""
        async for event in make(
            settings, reference=tag or settings.image, agents=agent or [], dockerfile=dockerfile
        ):
            image = event.text
            if not as_json:
                say(f"{event.step}: {event.text}")
        return image

    try:
        image = asyncio.run(work())
    except AnyonError as error:
        show_error(error.code, error.message, error.hint, as_json=as_json, status=error.status)
        raise typer.Exit(exit_code(error.status)) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if as_json:
        show_json({"image": image, "reference": tag or settings.image})
