"""``anyon checkpoint``: saved states of a project, looked into, downloaded, brought back, forked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from anyon.cli.bars import bar, watched
from anyon.cli.printing import Cleaner, byte_size, say, show_json, show_table
from anyon.cli.sessions import Json, ProjectName, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyon.sdk.checkpoints import Change, CheckpointDetail, Entry, TextChange
    from anyon.sdk.clients import Client
    from anyon.sdk.lives import Checkpoint, Verified
    from anyon.sdk.models import Project

app = typer.Typer(help="Checkpoints: saved states of a project's files.", no_args_is_help=True)
CheckpointName = Annotated[
    str, typer.Argument(help="The checkpoint's id, or latest.", show_default=False)
]
PathText = Annotated[
    str,
    typer.Argument(
        help="A path as `browse` shows it, beginning with a tree: workspace/src/main.py",
        show_default=False,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(help="The checkpoint to compare with; the one before if it is left out."),
]
_PAGE = 10_000


async def _of(client: "Client", project: str, checkpoint: str) -> tuple[UUID, str]:
    """Return the ids that are meant."""
    found = (await client.projects.find(project)).id
    if checkpoint != "latest":
        return found, checkpoint
    listed = await client.lives.checkpoints(found)
    return found, listed[0].id if listed else "none"


@app.command("list")
def list_all(ctx: typer.Context, project: ProjectName, as_json: Json = False) -> None:
    """List a project's checkpoints, newest first; wakes nothing."""

    async def find(client: "Client") -> "Sequence[Checkpoint]":
        return await client.lives.checkpoints((await client.projects.find(project)).id)

    found = ask(ctx, find, as_json=as_json)
    if as_json:
        show_json(list(found))
        return
    rows = [
        (
            one.id,
            f"{one.at:%Y-%m-%d %H:%M:%S}",
            one.reason,
            str(one.files),
            byte_size(one.size_bytes),
            byte_size(one.new_bytes),
        )
        for one in found
    ]
    show_table(["id", "at", "reason", "files", "size", "new"], rows)


@app.command("create")
def create(ctx: typer.Context, project: ProjectName, as_json: Json = False) -> None:
    """Save a project now; done once that is confirmed in the store."""

    async def work(client: "Client") -> "Checkpoint":
        found = (await client.projects.find(project)).id
        return await watched(client, found, client.lives.save(found), words="Saving", quiet=as_json)

    taken = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(taken)
    else:
        say(f"saved {taken.files} files ({byte_size(taken.size_bytes)}) as {taken.id}")
        if taken.unreadable:
            say(f"{taken.unreadable} files or directories could not be read: they are not in it")
        if taken.unstable:
            say(
                f"{taken.unstable} files were written while they were read: they may be of two moments"
            )


app.command("save", hidden=True)(create)


@app.command()
def show(
    ctx: typer.Context, project: ProjectName, checkpoint: CheckpointName, as_json: Json = False
) -> None:
    """Show what a checkpoint is made of; wakes nothing."""

    async def find(client: "Client") -> "CheckpointDetail":
        return await client.checkpoints.get(*await _of(client, project, checkpoint))

    one = ask(ctx, find, as_json=as_json)
    if as_json:
        show_json(one)
        return
    for name, value in (
        ("id", one.id),
        ("at", f"{one.at:%Y-%m-%d %H:%M:%S} UTC"),
        ("reason", one.reason),
        ("parent", one.parent or "none"),
        ("trees", ", ".join(one.trees)),
        ("files", f"{one.files}, {byte_size(one.size_bytes)}"),
        ("stored", f"{one.packs} packs, {byte_size(one.stored_bytes)}"),
        ("borrowed packs", one.borrowed_packs),
        ("unreadable", one.unreadable),
        ("unstable", one.unstable),
        ("last look by", one.look or "nothing was held still"),
        ("written by", one.tool),
    ):
        say(f"{name + ':':<16}{value}")


@app.command()
def browse(
    ctx: typer.Context,
    project: ProjectName,
    checkpoint: CheckpointName,
    path: PathText = "",
    as_json: Json = False,
) -> None:
    """List a directory of a checkpoint (without a path: its trees); wakes nothing."""

    async def find(client: "Client") -> "list[Entry]":
        where = await _of(client, project, checkpoint)
        found: list[Entry] = []
        while True:
            part = await client.checkpoints.browse(*where, path, offset=len(found), limit=_PAGE)
            found += part.entries
            if len(found) >= part.total or not part.entries:
                return found

    found = ask(ctx, find, as_json=as_json)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            one.kind,
            f"{one.mode:04o}",
            byte_size(one.size_bytes) if one.kind == "file" else "",
            f"{one.modified_at:%Y-%m-%d %H:%M:%S}" if one.modified_at else "",
            one.path + (f" -> {one.target}" if one.target else ""),
        )
        for one in found
    ]
    show_table(["kind", "mode", "size", "modified", "path"], rows)


@app.command()
def diff(
    ctx: typer.Context,
    project: ProjectName,
    checkpoint: CheckpointName,
    *,
    since: Since = None,
    path: Annotated[
        str | None, typer.Option(help="Show how this one file differs, as text.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List what was added, changed and removed since another checkpoint; wakes nothing."""
    if path is not None:
        _text_diff(ctx, project, checkpoint, since, path, as_json=as_json)
        return

    async def find(client: "Client") -> "list[Change]":
        where = await _of(client, project, checkpoint)
        found: list[Change] = []
        while True:
            part = await client.checkpoints.changes(
                *where, since=since, offset=len(found), limit=_PAGE
            )
            found += part.changes
            if not part.has_more:
                return found

    found = ask(ctx, find, as_json=as_json)
    if as_json:
        show_json(found)
        return
    marks = {"added": "+", "changed": "~", "removed": "-"}
    for one in found:
        say(f"{marks[one.change]} {one.path}")


def _text_diff(
    ctx: typer.Context,
    project: str,
    checkpoint: str,
    since: str | None,
    path: str,
    *,
    as_json: bool,
) -> None:
    async def find(client: "Client") -> "TextChange":
        where = await _of(client, project, checkpoint)
        return await client.checkpoints.text_change(*where, path, since=since)

    found = ask(ctx, find, as_json=as_json)
    if as_json:
        show_json(found)
    elif found.is_binary or found.is_too_large:
        say(f"{path} is {'binary' if found.is_binary else 'too large'}: download both instead")
    else:
        say(found.text.rstrip("\n") or f"{path} is the same")


@app.command()
def cat(
    ctx: typer.Context, project: ProjectName, checkpoint: CheckpointName, path: PathText
) -> None:
    """Print a file of a checkpoint; wakes nothing. On a terminal without what that would obey."""
    import sys  # noqa: PLC0415 - standard output as bytes is needed here only

    cleaner = Cleaner() if sys.stdout.isatty() else None

    async def work(client: "Client") -> None:
        where = await _of(client, project, checkpoint)
        async with client.checkpoints.file(*where, path) as found:
            async for piece in found.pieces:
                if cleaner is None:
                    sys.stdout.buffer.write(piece)
                else:
                    sys.stdout.write(cleaner.feed(piece))
        if cleaner is not None:
            sys.stdout.write(cleaner.feed(b"", final=True))
        sys.stdout.flush()

    ask(ctx, work, as_json=False)


@app.command()
def download(
    ctx: typer.Context,
    project: ProjectName,
    checkpoint: CheckpointName,
    path: PathText = "",
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to; its own name if left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Download a file, or a directory (without a path: everything) as a tar archive; wakes nothing.

    A file is gone on with where an earlier try of the same content broke off.
    """
    from anyon.cli import downloads  # noqa: PLC0415 - start-up stays quick without it

    async def work(client: "Client") -> tuple[Path, int]:
        where = await _of(client, project, checkpoint)
        is_file = bool(path) and (await client.checkpoints.entry(*where, path)).kind == "file"
        target = output or Path(downloads.local_name(path, is_archive=not is_file))
        if target.exists():
            raise typer.BadParameter(f"{target} is there already", param_hint="--output")
        with bar(f"Downloading {target.name}", quiet=as_json) as shown:
            fetch = downloads.fetch if is_file else downloads.fetch_archive
            return target, await fetch(client, where, path, target, shown)

    try:
        target, size = ask(ctx, work, as_json=as_json)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--output") from error
    if as_json:
        show_json({"file": str(target), "size_bytes": size})
    else:
        say(f"{target}: {byte_size(size)}")


@app.command()
def restore(
    ctx: typer.Context,
    project: ProjectName,
    checkpoint: CheckpointName,
    *,
    path: Annotated[
        str | None, typer.Option(help="Only this file or directory: workspace/src")
    ] = None,
    attempt: Annotated[str | None, typer.Option(help="Only this attempt's worktree.")] = None,
    as_project: Annotated[
        str | None, typer.Option("--as", help="Into a new project of this name; this one stays.")
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also while something runs; for all of it, stop that first."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Go back to a checkpoint, wholly or in part; what is there now is saved first."""
    from anyon.sdk.requests import Restore  # noqa: PLC0415 - start-up stays quick without it

    if sum(one is not None for one in (path, attempt, as_project)) > 1:
        raise typer.BadParameter("give one of --path, --attempt and --as")
    if as_project is not None:
        fork(ctx, project, checkpoint, as_project, as_json=as_json)
        return
    wish = Restore(path=path, attempt_id=None if attempt is None else UUID(attempt), force=force)

    async def work(client: "Client") -> "Checkpoint":
        where = await _of(client, project, checkpoint)
        call = client.checkpoints.restore(*where, wish)
        return await watched(client, where[0], call, words="Restoring", quiet=as_json)

    chosen = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(chosen)
    else:
        what = path or attempt or project
        say(f"{what} is as it was at {chosen.at:%Y-%m-%d %H:%M:%S}")


@app.command()
def fork(
    ctx: typer.Context,
    project: ProjectName,
    checkpoint: CheckpointName,
    name: Annotated[str, typer.Argument(help="The new project's name.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Make a new project from a checkpoint, at once whatever its size; its first work brings the files."""

    async def work(client: "Client") -> "Project":
        return await client.checkpoints.fork(*await _of(client, project, checkpoint), name)

    made = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(made)
    else:
        say(f"{made.name} is a project of its own: {made.id}")


@app.command()
def verify(
    ctx: typer.Context,
    project: ProjectName,
    checkpoint: CheckpointName,
    read_data: Annotated[
        bool,
        typer.Option("--bytes", "--read-data", help="Read every byte, not only the structure."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a checkpoint where it lies; wakes nothing. Ends with 1 if it is damaged."""

    async def work(client: "Client") -> "Verified":
        where = await _of(client, project, checkpoint)
        call = client.lives.verify(*where, read_data=read_data)
        return await watched(client, where[0], call, words="Verifying", quiet=as_json)

    seen = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(seen)
    else:
        for line in (*seen.problems, *seen.offers):
            say(line)
        outcome = f"{len(seen.problems)} damages" if seen.problems else "whole"
        say(f"{seen.files} files in {seen.packs} packs: {outcome}")
    if seen.problems:
        raise typer.Exit(1)
