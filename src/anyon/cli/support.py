"""``anyon support``: what to send along with a report."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from anyon.cli.printing import progress, say, show_error, show_json
from anyon.cli.sessions import Json, exit_code, if_it_answers, settings_or_exit

app = typer.Typer(help="Help from others: what to send along with a report.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep ``bundle`` a command of its own, whatever else is in the group."""


@app.command()
def bundle(
    ctx: typer.Context,
    out: Annotated[
        Path | None,
        typer.Option(help="The archive to write; default: by the time, here.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write an archive of versions, settings, findings, logs, metrics and counts, without anything private.

    No names, prompts, files, outputs, tokens or keys are in it; its README says what is. Look into
    it before you send it.
    """
    settings = settings_or_exit(as_json)
    from anyon.domain.errors import AnyonError  # noqa: PLC0415 - other commands start without it
    from anyon.wiring import support  # noqa: PLC0415 - as above

    path = (out or Path(f"anyon-support-{datetime.now(UTC):%Y%m%d-%H%M%S}.tar.gz")).absolute()
    try:
        with progress("Gathering …", quiet=as_json):
            metrics = if_it_answers(ctx, lambda client: client.metrics())
            files = asyncio.run(support.gather(settings, metrics=metrics))
            size = support.write(path, files)
    except AnyonError as error:
        show_error(error.code, error.message, error.hint, as_json=as_json, status=error.status)
        raise typer.Exit(exit_code(error.status)) from None
    if as_json:
        show_json({"path": str(path), "size_bytes": size, "files": sorted(files)})
        return
    say(f"{path} ({size / 1024:.0f} KiB): {', '.join(sorted(files))}")
    if metrics is None:
        say("The server did not answer, so its metrics are not inside.")
    say("Nothing private should be inside; look into it before you send it.")
