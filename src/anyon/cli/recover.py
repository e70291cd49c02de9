"""``anyon recover``: the projects of a lost machine, from their store alone."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anyon.cli.printing import progress, say, show_error, show_json, show_table
from anyon.cli.sessions import ExitCode, Json, exit_code, settings_or_exit

if TYPE_CHECKING:
    from anyon.wiring.recover import Recovered, Recovery


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(recover)


def recover(
    *,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="The store: a directory, gs://bucket/prefix or s3://bucket/prefix; default: as set.",
            show_default=False,
        ),
    ] = None,
    key_file: Annotated[
        str | None,
        typer.Option(
            help="The key file of an encrypted store; default: as set.", show_default=False
        ),
    ] = None,
    state: Annotated[
        str,
        typer.Option(
            help="The server's own records (users, tokens, history): auto, replica, snapshot or checkpoints."
        ),
    ] = "auto",
    server: Annotated[
        str | None,
        typer.Option(
            help="Whose, where the store has those of several servers.", show_default=False
        ),
    ] = None,
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    is_forced: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Also what a server holds that has not been silent for ten minutes: it is shut out.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Take up what a lost machine had: users, tokens, and every project; files come with its next work.

    For an empty home, with no server running on it. The server's records come from their replica
    in the store, else from the last snapshot, else from the projects' checkpoints. What is here
    already is left as it is.
    """
    settings = settings_or_exit(as_json)
    key_file = str(Path(key_file).absolute()) if key_file is not None else None
    from anyon.domain.errors import AnyonError  # noqa: PLC0415 - other commands start without it
    from anyon.telemetry import configure_logging  # noqa: PLC0415 - as above
    from anyon.wiring.recover import Wish  # noqa: PLC0415 - the drivers hang on it
    from anyon.wiring.recover import recover as run  # noqa: PLC0415 - as above

    configure_logging("warning", settings.log_format)
    try:
        with progress("Reading the store …", quiet=as_json):
            wish = Wish(
                source=source,
                key_file=key_file,
                state=state,
                server=server,
                is_dry=is_dry,
                is_forced=is_forced,
            )
            done = asyncio.run(run(settings, wish))
    except AnyonError as error:
        show_error(error.code, error.message, error.hint, as_json=as_json, status=error.status)
        raise typer.Exit(exit_code(error.status)) from None
    found = done.projects
    if as_json:
        show_json(
            {
                "state": {
                    "source": str(done.state.source),
                    "server": done.state.server,
                    "at": done.state.at.isoformat() if done.state.at else None,
                    "notes": list(done.state.notes),
                },
                "projects": [_plain(one) for one in found],
                "dry_run": is_dry,
            }
        )
    else:
        _tell_state(done)
        show_table(["project", "outcome", "saved at", "age", "tasks", "note"], map(_row, found))
        if source is not None and source != settings.store and not is_dry:
            say(f"Start the server with ANYON_STORE={source}, so that it finds the files.")
        if key_file is not None and key_file != str(settings.keys_path) and not is_dry:
            say(
                f"Copy {key_file} to {settings.keys_path}, or start it with ANYON_KEY_FILE={key_file}."
            )
    if any(one.outcome == "failed" for one in found):
        raise typer.Exit(ExitCode.ERROR)


def _tell_state(done: "Recovery") -> None:
    state = done.state
    at = f", as of {state.at:%Y-%m-%d %H:%M:%S} UTC" if state.at else ""
    whose = f" of server {state.server}" if state.server else ""
    say(f"The server's records: {state.source}{whose}{at}.")
    for note in state.notes:
        say(f"Not usable: {note}")


def _plain(one: "Recovered") -> dict[str, Any]:
    return {
        "place": one.place,
        "name": one.name,
        "outcome": str(one.outcome),
        "checkpoint": one.checkpoint_id,
        "at": one.at.isoformat() if one.at else None,
        "age_seconds": round(one.age.total_seconds(), 3) if one.age is not None else None,
        "tasks": one.tasks,
        "attempts": one.attempts,
        "processes": one.processes,
        "deleted": one.is_deleted,
        "code": one.code,
        "detail": one.detail,
    }


def _row(one: "Recovered") -> tuple[str, ...]:
    at = f"{one.at:%Y-%m-%d %H:%M:%S}" if one.at else ""
    age = str(timedelta(seconds=round(one.age.total_seconds()))) if one.age is not None else ""
    note = f"{one.detail} [{one.code}]" if one.code else "deleted" if one.is_deleted else ""
    return one.name or one.place, str(one.outcome), at, age, str(one.tasks), note
