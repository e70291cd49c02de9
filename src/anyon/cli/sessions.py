"""What every command needs: where the server is, how to ask it, and how to end."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from anyon.cli.printing import progress, show_error
from anyon.config import Settings, SettingsError, load
from anyon.sdk.errors import ApiError, UnreachableError

if TYPE_CHECKING:  # the client is imported when a command asks something: start-up stays quick
    from anyon.sdk.clients import Client

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
ProjectName = Annotated[str, typer.Argument(help="The project's name or id.", show_default=False)]
TaskId = Annotated[str, typer.Argument(help="The task's id, or its beginning.", show_default=False)]


class ExitCode(IntEnum):
    """How a command ended, for scripts. ``exec`` ends with its command's own code instead."""

    OK = 0
    ERROR = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    CONFLICT = 5
    NOT_ALLOWED = 6
    MISSING = 7
    UNAVAILABLE = 8
    INTERRUPTED = 130


_CODES = {
    0: ExitCode.UNREACHABLE,
    401: ExitCode.NOT_ALLOWED,
    403: ExitCode.NOT_ALLOWED,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.CONFLICT,
    421: ExitCode.NOT_ALLOWED,
    424: ExitCode.MISSING,
    429: ExitCode.UNAVAILABLE,
    502: ExitCode.UNAVAILABLE,
    503: ExitCode.UNAVAILABLE,
    504: ExitCode.UNAVAILABLE,
}


def exit_code(status: int) -> ExitCode:
    """Return the exit code for an error's HTTP status (0: no answer)."""
    return _CODES.get(status, ExitCode.ERROR)


@dataclass(frozen=True, slots=True)
class Session:
    """The options before the command."""

    server: str | None
    token: str | None


def settings_or_exit(as_json: bool = False, given: Mapping[str, object] | None = None) -> Settings:
    """Return the settings, *given* options before all; or tell what is wrong with them and end."""
    options = {
        f"ANYON_{key.upper()}": str(value)
        for key, value in (given or {}).items()
        if value is not None
    }
    try:
        return load({**os.environ, **options})
    except SettingsError as error:
        show_error(error.code, str(error), "", as_json=as_json)
        raise typer.Exit(ExitCode.USAGE) from None


def server_address(session: Session, settings: Settings) -> str:
    """Return where the server is: as asked, else as set."""
    if session.server:
        return session.server if "://" in session.server else f"http://{session.server}"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _local_token(session: Session, settings: Settings) -> str | None:
    """Return the key that this machine's own server keeps for us, never for another server."""
    if session.server:
        return None
    try:
        return (settings.home / "token").read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None  # it asks for none, or it is not ours to read: the server's answer says so


def ask(
    ctx: typer.Context,
    work: "Callable[[Client], Awaitable[T]]",
    *,
    as_json: bool,
    words: str = "",
) -> T:
    """Do *work* with a client; an error is told on stderr and ends the command with its code."""
    session: Session = ctx.obj
    settings = settings_or_exit(as_json)
    address = server_address(session, settings)
    token = session.token or _local_token(session, settings)
    try:
        with progress(words, quiet=as_json or not words):
            return asyncio.run(_with_client(address, token, work))
    except ApiError as error:
        show_error(
            error.code,
            error.message,
            error.hint,
            as_json=as_json,
            status=error.status,
            request_id=error.request_id,
        )
        code = (
            ExitCode.UNREACHABLE if isinstance(error, UnreachableError) else exit_code(error.status)
        )
        raise typer.Exit(code) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read our output has seen enough (`| head`); nothing more can be told there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise typer.Exit(ExitCode.OK) from None


def if_it_answers(ctx: typer.Context, work: "Callable[[Client], Awaitable[T]]") -> T | None:
    """Do *work* with a client as ``ask`` does; None where the server is away or refuses."""
    session: Session = ctx.obj
    settings = settings_or_exit()
    token = session.token or _local_token(session, settings)
    try:
        return asyncio.run(_with_client(server_address(session, settings), token, work))
    except ApiError:
        return None


async def _with_client(
    address: str, token: str | None, work: "Callable[[Client], Awaitable[T]]"
) -> T:
    # httpx imports a command line of its own when it can, which costs more than all the rest.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type] # None: "cannot be imported"
    from anyon.sdk.clients import Client  # noqa: PLC0415 - see above

    async with Client(address, token) as client:
        return await work(client)
