"""``anyon rollback``."""

import asyncio
import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from anyon.cli.printing import harmless, say, show_error, show_json, show_table
from anyon.cli.sessions import ExitCode, Json, exit_code, settings_or_exit

if TYPE_CHECKING:  # it brings the whole server
    from anyon.wiring.rollbacks import Report


def rollback(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be lost; change nothing.")
    ] = False,
    discard_work: Annotated[
        bool, typer.Option("--discard-work", help="Go back even if work done since is lost by it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Undo the last migration: former files, the link, the storage; proven by GET /api/projects.

    It refuses where work done since would be lost, and says which. Stop the server first; start
    it again after.
    """
    settings = settings_or_exit(as_json)
    from anyon.domain.errors import AnyonError  # noqa: PLC0415 - other commands start without it
    from anyon.telemetry import configure_logging  # noqa: PLC0415 - as above
    from anyon.wiring import rollbacks  # noqa: PLC0415 - as above

    configure_logging("error", settings.log_format)

    def tell(number: int, count: int, name: str) -> None:
        if not as_json:
            sys.stderr.write(f"[{number}/{count}] {harmless(name)}\n")

    work = rollbacks.roll_back(settings, is_dry=dry_run, discard_work=discard_work, tell=tell)
    try:
        report = asyncio.run(work)
    except AnyonError as error:
        show_error(error.code, error.message, error.hint, as_json=as_json, status=error.status)
        raise typer.Exit(exit_code(error.status)) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if as_json:
        show_json(dataclasses.asdict(report))
    else:
        _show(report, is_dry=dry_run)


def _show(report: "Report", *, is_dry: bool) -> None:
    if is_dry:
        say(f"What would be undone: {report.kind}.")
        show_table(["project", "lost"], [(one.name, one.words) for one in report.lost])
        return
    show_table(
        ["project", "state", "files"], [(one.name, one.state, one.path) for one in report.projects]
    )
    for note in report.notes:
        say(note)
    say(f"GET /api/projects: {len(report.answer)} projects.")
