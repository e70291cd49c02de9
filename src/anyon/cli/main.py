"""``anyon``: the entry point and the options before the command."""

from typing import Annotated

import typer

from anyon.cli import (
    attachments,
    checkpoints,
    drill,
    executions,
    gcs,
    images,
    installs,
    keys,
    load_tests,
    migrations,
    monitoring,
    mounts,
    previews,
    projects,
    recover,
    rollback,
    servers,
    statuses,
    storage,
    support,
    tags,
    tasks,
    tokens,
)
from anyon.cli.sessions import Session

EPILOG = (
    "Exit codes: 0 done, 1 error, 2 wrong usage, 3 server unreachable, 4 not found, 5 conflict, "
    "6 not allowed, 7 something is missing, 8 unavailable, 130 interrupted."
)

app = typer.Typer(
    name="anyon",
    help="One long-lived development environment per project, in which coding agents work side by side.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    ctx: typer.Context,
    server: Annotated[
        str | None,
        typer.Option(
            envvar="ANYON_SERVER", help="The server's address; default: as set.", show_default=False
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="ANYON_TOKEN",
            help="A token, where the server asks for one. Better in the environment.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Keep what all commands need."""
    ctx.obj = Session(server=server, token=token)


servers.add_to(app)
app.command()(statuses.status)
recover.add_to(app)
app.command()(rollback.rollback)
executions.add_to(app)
load_tests.add_to(app)
previews.add_to(app)
app.add_typer(projects.app, name="project")
attachments.add_to(tasks.app)
app.add_typer(tasks.app, name="task")
app.add_typer(tags.app, name="tag")
app.add_typer(images.app, name="image")
app.add_typer(gcs.app, name="gcs")
app.add_typer(installs.app, name="install")
app.add_typer(migrations.app, name="migrate")
app.add_typer(mounts.app, name="mount")
app.add_typer(checkpoints.app, name="checkpoint")
app.add_typer(storage.app, name="storage")
app.add_typer(keys.app, name="keys")
app.add_typer(tokens.app, name="token")
app.add_typer(monitoring.app, name="monitoring")
app.add_typer(support.app, name="support")
app.add_typer(drill.app, name="drill")


def main() -> None:
    """Run the command line."""
    app(prog_name="anyon")
