"""``anyon project``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyon.cli import lives, previews, saved_work, wakefulness
from anyon.cli.printing import say, show_json, show_table
from anyon.cli.sessions import ExitCode, Json, ProjectName, ask

if TYPE_CHECKING:
    from anyon.sdk.clients import Client
    from anyon.sdk.models import Project

app = typer.Typer(help="Projects: one repository and one container each.", no_args_is_help=True)


def _text(given: str | None) -> str | None:
    """Return a script that was given as such, or as ``@file``."""
    if given is None or not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{given[1:]} cannot be read: {error}") from None


@app.command()
def create(
    *,
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Its name.", show_default=False)],
    path: Annotated[
        Path | None, typer.Option(help="Import (copy) this local repository.", show_default=False)
    ] = None,
    clone: Annotated[str | None, typer.Option(help="Clone this URL.", show_default=False)] = None,
    image: Annotated[
        str | None, typer.Option(help="Image of its container.", show_default=False)
    ] = None,
    agent: Annotated[
        str | None, typer.Option(help="Its default agent.", show_default=False)
    ] = None,
    setup: Annotated[
        str | None, typer.Option(help="Setup script, or @file.", show_default=False)
    ] = None,
    dev: Annotated[
        str | None, typer.Option(help="Dev server script, or @file.", show_default=False)
    ] = None,
    cleanup: Annotated[
        str | None, typer.Option(help="Cleanup script, or @file.", show_default=False)
    ] = None,
    copy_files: Annotated[
        str | None,
        typer.Option(help="Files to copy into each worktree, comma-separated.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a project: new, imported or cloned."""
    from anyon.sdk.requests import CreateProject  # noqa: PLC0415 - start-up stays quick

    new = CreateProject(
        name=name,
        git_repo_path=str(path.expanduser().absolute()) if path else "",
        use_existing_repo=path is not None,
        clone_url=clone,
        image=image,
        default_agent=agent,
        setup_script=_text(setup),
        dev_script=_text(dev),
        cleanup_script=_text(cleanup),
        copy_files=copy_files,
    )
    project = ask(
        ctx,
        lambda client: client.projects.create(new),
        as_json=as_json,
        words="Making the project …",
    )
    if as_json:
        show_json(project)
    else:
        say(f"made project {project.name} ({project.id}) in {project.git_repo_path}")


@app.command("list")
def list_all(ctx: typer.Context, as_json: Json = False) -> None:
    """List the projects; wakes none."""
    projects = ask(ctx, lambda client: client.projects.list(), as_json=as_json)
    if as_json:
        show_json(list(projects))
    else:
        rows = [(p.id, p.name, p.phase, f"{p.updated_at:%Y-%m-%d %H:%M}") for p in projects]
        show_table(["id", "name", "phase", "updated"], rows)


@app.command()
def show(ctx: typer.Context, project: ProjectName, as_json: Json = False) -> None:
    """Show a project."""
    found = ask(ctx, lambda client: client.projects.find(project), as_json=as_json)
    if as_json:
        show_json(found)
        return
    for key, value in found.model_dump(mode="json").items():
        if value not in {None, ""}:
            say(f"{key.replace('_', ' ')}: {value}")


@app.command()
def delete(
    ctx: typer.Context,
    project: ProjectName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a project, its container with it."""
    found = ask(ctx, lambda client: client.projects.find(project), as_json=as_json)
    if not yes and not as_json:
        typer.confirm(f"Delete project {found.name} ({found.id})?", abort=True, err=True)
    elif not yes:
        raise typer.BadParameter("with --json, say --yes too")

    async def work(client: "Client") -> "Project":
        await client.projects.delete(found.id)
        return found

    ask(ctx, work, as_json=as_json, words="Deleting the project …")
    if as_json:
        show_json({"deleted": str(found.id)})
    else:
        say(f"deleted project {found.name}")


@app.command()
def shell(
    ctx: typer.Context,
    project: ProjectName,
    command: Annotated[
        str | None,
        typer.Option("--command", "-c", help="Run this instead of a shell.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Open an interactive terminal in the project's container."""
    from anyon.cli.terminals import interact  # noqa: PLC0415 - start-up stays quick

    async def work(client: "Client") -> int:
        found = await client.projects.find(project)
        return await interact(client, found.id, command, quiet=as_json)

    code = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json({"exit_code": code})
    raise typer.Exit(code or ExitCode.OK)


app.command()(lives.deleted)
app.command("restore")(lives.undelete)
app.command()(wakefulness.stop)
app.command()(wakefulness.archive)
app.command()(wakefulness.start)
app.command()(lives.why)
app.command()(wakefulness.hold)
app.command()(wakefulness.release)
app.command("set")(wakefulness.set_times)
app.command()(lives.events)
app.command()(previews.ports)
app.command()(saved_work.saved)
app.command()(saved_work.bring_back)
