"""``anyon migrate``."""

import asyncio
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyon.cli.printing import harmless, say, show_error, show_json, show_table
from anyon.cli.sessions import ExitCode, Json, exit_code, settings_or_exit

if TYPE_CHECKING:  # it brings the whole server
    from anyon.wiring.migrations import Report

app = typer.Typer(help="Migrate: bring an old installation in.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep ``from-layout`` a command of its own, whatever else is in the group."""


@app.command()
def from_layout(
    source: Annotated[
        Path, typer.Option("--from", help="It holds workspace/, worktrees/ and data/anyon.db.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look; change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Copy an old installation's projects, tasks, attempts and merges into this server's home.

    Every file's hash and every reference is compared, and git reads every object. The source is
    only read. Stop both servers first. A repeat goes on where the last run ended. Exits with 1
    when a project failed; the others are there.
    """
    settings = settings_or_exit(as_json)
    from anyon.domain.errors import AnyonError  # noqa: PLC0415 - other commands start without it
    from anyon.telemetry import configure_logging  # noqa: PLC0415 - as above
    from anyon.wiring import migrations  # noqa: PLC0415 - as above

    configure_logging("error", settings.log_format)

    def tell(number: int, count: int, name: str) -> None:
        if not as_json:
            sys.stderr.write(f"[{number}/{count}] {harmless(name)}\n")

    try:
        report = asyncio.run(migrations.from_layout(settings, source, is_dry=dry_run, tell=tell))
    except AnyonError as error:
        show_error(error.code, error.message, error.hint, as_json=as_json, status=error.status)
        raise typer.Exit(exit_code(error.status)) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if as_json:
        show_json(dataclasses.asdict(report))
    else:
        _show(report)
    if any(one.state == "failed" for one in report.projects):
        raise typer.Exit(ExitCode.ERROR)


def _show(report: "Report") -> None:
    show_table(
        ["project", "state", "tasks", "attempts", "worktrees", "merges"],
        [
            (one.name, one.state, one.tasks, one.attempts, one.worktrees, one.merges)
            for one in report.projects
        ],
    )
    for one in report.projects:
        for note in one.notes:
            say(f"{one.name}: {note}")
    for note in report.notes:
        say(note)
    if report.missing:
        say(f"The old database has no {', '.join(report.missing)}.")
    if report.left:
        counts = ", ".join(f"{table} ({count})" for table, count in report.left.items())
        say(f"Not taken over: {counts}. They stay in the old database.")
