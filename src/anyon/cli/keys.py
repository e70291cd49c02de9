"""``anyon keys``: the key file of an encrypted store."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from anyon.cli.printing import say, show_error, show_json, show_table
from anyon.cli.sessions import Json, exit_code, settings_or_exit

if TYPE_CHECKING:
    from anyon.domain.errors import AnyonError

app = typer.Typer(help="The keys with which the store is encrypted.", no_args_is_help=True)


@app.command("list")
def list_all(as_json: Json = False) -> None:
    """List the ids of the key file's keys, never the keys."""
    settings = settings_or_exit(as_json)
    from anyon.domain.errors import AnyonError  # noqa: PLC0415 - other commands start without it
    from anyon.wiring import keyfiles  # noqa: PLC0415 - as above

    try:
        ids = keyfiles.ids(settings.keys_path)
    except AnyonError as error:
        raise _told(error, as_json) from None
    _show(settings.keys_path, ids, as_json)


@app.command()
def rotate(as_json: Json = False) -> None:
    """Add a key to the key file; older ones stay in it, and open what they sealed.

    Restart the server after it: each project's next checkpoint is then a full one under the new key.
    """
    settings = settings_or_exit(as_json)
    from anyon.domain.errors import AnyonError  # noqa: PLC0415 - other commands start without it
    from anyon.wiring import keyfiles  # noqa: PLC0415 - as above

    try:
        ids = keyfiles.rotate(settings.keys_path)
    except AnyonError as error:
        raise _told(error, as_json) from None
    _show(settings.keys_path, ids, as_json)
    if not as_json:
        say("Copy the file to where you keep it, then restart the server.")


def _told(error: "AnyonError", as_json: bool) -> typer.Exit:
    show_error(error.code, error.message, error.hint, as_json=as_json, status=error.status)
    return typer.Exit(exit_code(error.status))


def _show(file: Path, ids: Sequence[bytes], as_json: bool) -> None:
    if as_json:
        show_json({"file": str(file), "keys": [key.hex() for key in ids]})
        return
    show_table(
        ["key", "used for"],
        [(key.hex(), "reading" if key != ids[-1] else "reading and writing") for key in ids],
    )
