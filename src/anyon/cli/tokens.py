"""``anyon token``."""

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from anyon.cli.printing import say, show_json, show_table
from anyon.cli.sessions import Json, ask

if TYPE_CHECKING:
    from anyon.sdk.clients import Client

app = typer.Typer(help="Tokens: keys to the API.", no_args_is_help=True)

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is for.", show_default=False)],
    expires: Annotated[
        str | None, typer.Option(help="How long it is good: 90d, 12h, 30m.", show_default=False)
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="What it may do: read, write, * (default). Repeatable.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a token and print its secret, this once."""
    from anyon.sdk.requests import CreateToken  # noqa: PLC0415 - start-up stays quick

    expires_at = datetime.now(UTC) + _length(expires) if expires else None
    new = CreateToken(name=name, expires_at=expires_at, scopes=scope or None)
    made = ask(ctx, lambda client: client.tokens.create(new), as_json=as_json)
    if as_json:
        show_json(made)
    else:
        say(made.secret)


@app.command("list")
def list_all(ctx: typer.Context, as_json: Json = False) -> None:
    """List the tokens, never their secrets."""
    tokens = ask(ctx, lambda client: client.tokens.list(), as_json=as_json)
    if as_json:
        show_json(list(tokens))
        return
    rows = [
        (
            one.id,
            one.name,
            one.prefix,
            _time(one.created_at),
            _time(one.expires_at),
            _time(one.last_used_at),
        )
        for one in tokens
    ]
    show_table(["id", "name", "prefix", "created", "expires", "last used"], rows)


@app.command()
def revoke(
    ctx: typer.Context,
    token: Annotated[str, typer.Argument(help="The token's id.", show_default=False)],
    as_json: Json = False,
) -> None:
    """End a token at once."""

    async def work(client: "Client") -> None:
        await client.tokens.revoke(token)

    ask(ctx, work, as_json=as_json)
    if as_json:
        show_json({"revoked": token})
    else:
        say(f"revoked token {token}")


def _length(text: str) -> timedelta:
    match = re.fullmatch(r"([0-9]{1,5})([mhd])", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no length; write 90d, 12h or 30m")
    return int(match[1]) * _UNITS[match[2]]


def _time(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M}" if time else "-"
