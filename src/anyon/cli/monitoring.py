"""``anyon monitoring``."""

from pathlib import Path
from typing import Annotated

import typer

from anyon.cli.printing import say, show_error, show_json, show_table
from anyon.cli.sessions import Json, exit_code, settings_or_exit

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


@app.callback()
def group() -> None:
    """Keep ``render`` a command of its own, whatever else is in the group."""


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

    host = "localhost" if settings.host in {"127.0.0.1", "0.0.0.0", "::", "::1"} else settings.host  # noqa: S104 - compared
    token = settings.tokens_required if with_token is None else with_token
    try:
        targets = renderings.Targets(
            server=target or f"{host}:{settings.port}",
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
