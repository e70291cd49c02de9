"""``anyon gcs``."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from anyon.cli.printing import progress, say, show_error, show_json, show_table
from anyon.cli.sessions import ExitCode, Json, exit_code, settings_or_exit

if TYPE_CHECKING:  # Google's client takes a second to import
    from anyon.wiring.buckets import Readiness

app = typer.Typer(help="Google Cloud Storage: the bucket for checkpoints.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep ``init`` a command of its own, whatever else is in the group."""


@app.command()
def init(
    bucket: Annotated[str, typer.Option(help="The bucket's name, without gs://.")],
    location: Annotated[str, typer.Option(help="Where it is to be, such as asia-northeast3.")],
    project: Annotated[
        str | None,
        typer.Option(
            help="Google's project to make it in; default: the credentials' own.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Change nothing; exit with 1 if it is not as it should be."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a bucket ready: there, versioned, old versions deleted after 30 days, uniform access.

    Then an object is written, read, listed and deleted. Repeats change nothing. An emulator is
    used when STORAGE_EMULATOR_HOST is set.
    """
    settings_or_exit(as_json)
    from anyon.domain.errors import AnyonError  # noqa: PLC0415 - other commands start without it
    from anyon.wiring import buckets  # noqa: PLC0415 - as above

    name = bucket.removeprefix("gs://").rstrip("/")
    wanted = buckets.Wanted(name=name, location=location, project=project)
    try:
        with progress(f"Asking for gs://{name} …", quiet=as_json):
            found = buckets.check(wanted) if check else buckets.make_ready(wanted)
    except AnyonError as error:
        show_error(error.code, error.message, error.hint, as_json=as_json, status=error.status)
        raise typer.Exit(exit_code(error.status)) from None
    if as_json:
        show_json(dataclasses.asdict(found))
    else:
        _show(found)
    # An emulator keeps some settings not at all: that is said, and is no failure of the command.
    if found.differences and (check or not found.is_emulator):
        raise typer.Exit(ExitCode.ERROR)


def _show(found: "Readiness") -> None:
    for line in found.done:
        say(line)
    if found.differences:
        if found.done and found.is_emulator:
            say("The emulator does not keep these settings; the real service does:")
        show_table(
            ["setting", "found", "wanted"],
            [(one.setting, one.found, one.wanted) for one in found.differences],
        )
    else:
        say(f"gs://{found.bucket} is as it should be.")
    for line in found.warnings:
        say(f"warning: {line}")
