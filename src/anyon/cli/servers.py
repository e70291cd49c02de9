"""``anyon serve``, ``doctor`` and ``version``: this machine's side."""

import asyncio
import dataclasses
import inspect
from typing import Annotated, Any

import typer

from anyon import __version__
from anyon.cli.printing import progress, say, show_error, show_json, show_table
from anyon.cli.sessions import ExitCode, Json, exit_code, settings_or_exit


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(serve)
    app.command()(doctor)
    app.command()(version)


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default=False)
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port; 0 takes a free one.", show_default=False),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="auto, bubblewrap, docker or memory.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the server until it is told to stop (TERM or Ctrl-C)."""
    settings = settings_or_exit(as_json, {"host": host, "port": port, "engine": engine})
    from anyon.domain.errors import AnyonError  # noqa: PLC0415 - other commands start without it
    from anyon.wiring.serve import serve as run  # noqa: PLC0415 - the whole server hangs on it

    try:
        outcome: Any = run(settings)
        if inspect.isawaitable(outcome):
            asyncio.run(_wait(outcome))
    except AnyonError as error:
        show_error(error.code, error.message, error.hint, as_json=as_json, status=error.status)
        raise typer.Exit(exit_code(error.status)) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.OK) from None


async def _wait(outcome: Any) -> None:
    await outcome


def doctor(as_json: Json = False) -> None:
    """Examine this machine: what is there, what is missing, and how to get it."""
    settings = settings_or_exit(as_json)
    from anyon.wiring.doctor import examine  # noqa: PLC0415 - other commands start without it

    with progress("Examining this machine …", quiet=as_json):
        findings = asyncio.run(examine(settings))
    if as_json:
        show_json({"findings": [dataclasses.asdict(finding) for finding in findings]})
    else:
        rows = [(_mark(one.ok, one.needed), one.name, one.detail) for one in findings]
        show_table(["", "what", "found"], rows)
        for one in findings:
            if not one.ok and one.hint:
                say(f"{one.name}: {one.hint}")
    if any(one.needed and not one.ok for one in findings):
        raise typer.Exit(ExitCode.MISSING)


def _mark(ok: bool, needed: bool) -> str:
    if ok:
        return "ok"
    return "MISSING" if needed else "missing"


def version(as_json: Json = False) -> None:
    """Print the version."""
    if as_json:
        show_json({"version": __version__})
    else:
        say(f"anyon {__version__}")
