"""``anyon monitoring``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyon.cli.printing import progress, say, show_error, show_json, show_table
from anyon.cli.sessions import Json, exit_code, settings_or_exit

if TYPE_CHECKING:
    from anyon.config import Settings
    from anyon.monitoring.stacks import Standing

app = typer.Typer(help="Monitoring: Prometheus and Grafana over this server.", no_args_is_help=True)


_Webhook = Annotated[
    str | None,
    typer.Option(help="A URL that Alertmanager posts alerts to.", show_default=False),
]
_Email = Annotated[
    str | None,
    typer.Option(help="Who gets alerts by mail, if there is no webhook.", show_default=False),
]
_Smtp = Annotated[str, typer.Option(help="The mail server for that, as host:port.")]


@app.command()
def render(  # noqa: PLR0917 - the options of a command
    out: Annotated[Path, typer.Option(help="Directory to write to; made if it is not there.")],
    target: Annotated[
        str | None,
        typer.Option(
            help="The server as host:port, as Prometheus reaches it; default: as set.",
            show_default=False,
        ),
    ] = None,
    docker: Annotated[str, typer.Option(help="Docker's metrics.")] = "localhost:9323",
    node: Annotated[str, typer.Option(help="The node exporter.")] = "localhost:9100",
    with_token: Annotated[
        bool | None,
        typer.Option(
            help="Read a token for the server from prometheus/token; default: if it asks for one.",
            show_default=False,
        ),
    ] = None,
    alert_webhook: _Webhook = None,
    alert_email: _Email = None,
    smtp: _Smtp = "localhost:25",
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite files that this command did not make.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the configuration of Prometheus, Alertmanager and Grafana, with alerts, dashboards and a compose file."""
    settings = settings_or_exit(as_json)
    from anyon.domain.errors import AnyonError  # noqa: PLC0415 - other commands start without it
    from anyon.monitoring import folders, renderings  # noqa: PLC0415 - as above

    token = settings.tokens_required if with_token is None else with_token
    try:
        targets = renderings.Targets(
            server=target or _server(settings),
            docker=docker,
            node=node,
            token_file=renderings.TOKEN_FILE if token else None,
            webhook=alert_webhook,
            email=alert_email,
            smtp=smtp,
        )
        outcomes = folders.write(out, renderings.render(targets), force=force)
    except AnyonError as error:
        show_error(error.code, error.message, error.hint, as_json=as_json, status=error.status)
        raise typer.Exit(exit_code(error.status)) from None
    rows = sorted((str(path), str(outcome)) for path, outcome in outcomes.items())
    if as_json:
        files = [{"path": path, "outcome": outcome} for path, outcome in rows]
        show_json({"directory": str(out), "files": files})
        return
    show_table(["file", "outcome"], rows)
    if token:
        say(f"Put a token with the scope read into {out / 'prometheus' / renderings.TOKEN_FILE}.")
    say(f"Start it: GRAFANA_ADMIN_PASSWORD=… docker compose -f {out / 'compose.yml'} up -d")


@app.command()
def up(  # noqa: PLR0917 - the options of a command
    down: Annotated[
        bool, typer.Option("--down", help="End what was started; what was collected stays.")
    ] = False,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            help="Where all of it lies; default: monitoring in the home.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="The server as host:port; default: as set.", show_default=False),
    ] = None,
    docker: Annotated[str, typer.Option(help="Docker's metrics.")] = "localhost:9323",
    alert_webhook: _Webhook = None,
    alert_email: _Email = None,
    smtp: _Smtp = "localhost:25",
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite configuration that somebody changed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start the distribution's Prometheus, node exporter and Alertmanager over this server, without images.

    They are kept running in the background, on ports 9090, 9100 and 9093, or on free ones where
    those are taken. Grafana (3001) is started too if it is installed.
    """
    settings = settings_or_exit(as_json)
    from anyon.domain.errors import AnyonError  # noqa: PLC0415 - other commands start without it
    from anyon.monitoring import renderings, stacks  # noqa: PLC0415 - as above

    place = (directory or settings.home / "monitoring").absolute()
    try:
        if down:
            standing = stacks.down(place)
        else:
            targets = renderings.Targets(
                server=target or _server(settings),
                docker=docker,
                token_file=str(settings.home / "token") if settings.tokens_required else None,
                webhook=alert_webhook,
                email=alert_email,
                smtp=smtp,
            )
            with progress("Starting …", quiet=as_json):
                standing = stacks.up(place, targets, force=force)
    except AnyonError as error:
        show_error(error.code, error.message, error.hint, as_json=as_json, status=error.status)
        raise typer.Exit(exit_code(error.status)) from None
    _tell(standing, place, as_json=as_json)


def _tell(standing: "Standing", place: Path, *, as_json: bool) -> None:
    if as_json:
        show_json(
            {
                "state": str(standing.state),
                "directory": str(place),
                "programs": [
                    {
                        "name": one.name,
                        "address": f"http://{one.address}",
                        "is_usual_port": one.name not in standing.moved,
                    }
                    for one in standing.programs
                ],
            }
        )
        return
    say(f"{standing.state}: {place}")
    if not standing.programs:
        return
    show_table(
        ["program", "address"], [(one.name, f"http://{one.address}") for one in standing.programs]
    )
    for name, port in standing.moved.items():
        say(f"The usual port of {name} is taken by another program; it listens on {port}.")
    if any(one.name == "grafana" for one in standing.programs):
        say(f"Grafana's user is admin, its password is in {place / 'grafana-password'}.")
    else:
        say(
            "Grafana is not installed (distributions have no package of it): install it from its maker and repeat "
            f"this, or import the dashboards in {place / 'config' / 'grafana' / 'dashboards'} into one you have."
        )


def _server(settings: "Settings") -> str:
    """Return the server as host:port, as a program on this machine reaches it."""
    any_or_own = {"127.0.0.1", "0.0.0.0", "::", "::1"}  # noqa: S104 - compared, not bound
    host = "localhost" if settings.host in any_or_own else settings.host
    return f"{host}:{settings.port}"
