"""``anyon migrate``."""

import asyncio
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from anyon.cli.printing import bars, harmless, say, show_error, show_json, show_table
from anyon.cli.sessions import ExitCode, Json, ask, exit_code, settings_or_exit

if TYPE_CHECKING:  # it brings the whole server
    from anyon.sdk.clients import Client
    from anyon.sdk.lives import Movable
    from anyon.wiring.migrations import Report

app = typer.Typer(
    help="Migrate: bring an old installation in, move projects between storages.",
    no_args_is_help=True,
)


@app.command()
def from_layout(
    source: Annotated[
        Path, typer.Option("--from", help="It holds workspace/, worktrees/ and data/anyon.db.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look; change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Copy an old installation's projects, tasks, attempts, merges, tags and images into this server's home.

    Every file's hash and every reference is compared, and git reads every object. The source is
    only read. Stop both servers first. A repeat goes on where the last run ended. Exits with 1
    when a project failed or an image's file is not there or not as recorded; the others are there.
    """
    settings = settings_or_exit(as_json)
    from anyon.domain.errors import AnyonError  # noqa: PLC0415 - other commands start without it
    from anyon.telemetry import configure_logging  # noqa: PLC0415 - as above
    from anyon.wiring import migrations  # noqa: PLC0415 - as above

    configure_logging("error", settings.log_format)

    try:
        with bars(quiet=as_json) as show:

            def tell(what: str, number: int, count: int, name: str) -> None:
                show(what, number - 1, count)
                if not as_json:
                    kind = "" if what == "projects" else f"{what} "
                    sys.stderr.write(f"{kind}[{number}/{count}] {harmless(name)}\n")

            report = asyncio.run(
                migrations.from_layout(settings, source, is_dry=dry_run, tell=tell)
            )
    except AnyonError as error:
        show_error(error.code, error.message, error.hint, as_json=as_json, status=error.status)
        raise typer.Exit(exit_code(error.status)) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if as_json:
        show_json(dataclasses.asdict(report))
    else:
        _show(report)
    if report.lost or any(one.state == "failed" for one in report.projects):
        raise typer.Exit(ExitCode.ERROR)


@app.command()
def to_mount(
    ctx: typer.Context,
    project: Annotated[
        list[str] | None,
        typer.Option(help="Only these, by name or id; default: all.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Move projects from the local disk to the mounted bucket, one at a time; the others go on working.

    Your own; the server's operator moves everybody's.
    Every file's hash and every reference is compared, and git reads every object in a container
    over the copy, before the project is switched. What was there goes to projects-backup. A
    repeat goes on where the last run ended. Exits with 1 when a project could not be moved.
    """
    _move_all(ctx, "mount", project or [], as_json=as_json)


@app.command()
def to_checkpoints(
    ctx: typer.Context,
    project: Annotated[
        list[str] | None,
        typer.Option(help="Only these, by name or id; default: all.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Move projects from the mounted bucket back to the local disk, as `to-mount` does, and whose it does.

    What a bucket could not keep (executable files) is put back as far as it was known.
    """
    _move_all(ctx, "disk", project or [], as_json=as_json)


def _move_all(
    ctx: typer.Context, to: Literal["mount", "disk"], names: list[str], *, as_json: bool
) -> None:
    rows: list[dict[str, object]] = []

    async def move(client: "Client") -> None:
        may = await client.lives.movable()
        found = [_named(may, name) for name in names] if names else may
        with bars(quiet=as_json) as tell:
            for number, one in enumerate(found, 1):
                tell("projects", number - 1, len(found))
                row = await _moved(client, one, to)
                rows.append(row)
                if not as_json:
                    sys.stderr.write(
                        f"[{number}/{len(found)}] {harmless(one.name)}: {row['state']}\n"
                    )
                tell("projects", number, len(found))

    ask(ctx, move, as_json=as_json)
    if as_json:
        show_json({"projects": rows})
    else:
        show_table(
            ["project", "state", "files", "why"],
            [(row["name"], row["state"], row["files"], row["why"]) for row in rows],
        )
    if any(row["state"] == "failed" for row in rows):
        raise typer.Exit(ExitCode.ERROR)


def _named(found: Sequence["Movable"], name: str) -> "Movable":
    """Return the only one with that id or name: of several users' with one name none is guessed."""
    from anyon.sdk.errors import ApiError  # noqa: PLC0415 - from-layout does without

    fits = [one for one in found if name.lower() == str(one.id)] or [
        one for one in found if name == one.name
    ]
    if len(fits) == 1:
        return fits[0]
    if fits:
        ids = ", ".join(f"{one.id} (of user {one.user_id})" for one in fits)
        words = f"{name!r} fits several projects"
        raise ApiError(409, "ambiguous", words, f"Name one by its id: {ids}")
    hint = "Give a project's name or id; without --project all that you may move are."
    raise ApiError(404, "not_found", f"there is no project {name!r} that you may move", hint)


async def _moved(
    client: "Client", project: "Movable", to: Literal["mount", "disk"]
) -> dict[str, object]:
    """Return what became of one project; a server that does not answer ends all."""
    from anyon.sdk.errors import ApiError, UnreachableError  # noqa: PLC0415 - from-layout does without
    from anyon.sdk.requests import Move  # noqa: PLC0415 - as above

    row: dict[str, object] = {
        "id": str(project.id),
        "user_id": str(project.user_id),
        "name": project.name,
        "files": 0,
        "why": "",
    }
    try:
        moved = await client.lives.move(project.id, Move(to=to))
    except UnreachableError:
        raise
    except ApiError as error:
        return row | {"state": "failed", "why": f"{error.message} [{error.code}]"}
    return row | {"state": moved.state, "files": moved.files}


def _show(report: "Report") -> None:
    show_table(
        ["project", "state", "tasks", "attempts", "worktrees", "merges", "images"],
        [
            (one.name, one.state, one.tasks, one.attempts, one.worktrees, one.merges, one.images)
            for one in report.projects
        ],
    )
    say(f"New: {report.tags} tags, {report.images} images.")
    for words in report.lost:
        say(f"Not taken over: {words}")
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
