"""``anyon mount``."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from anyon.cli.printing import progress, say, show_error, show_json
from anyon.cli.sessions import ExitCode, Json, exit_code, settings_or_exit

if TYPE_CHECKING:
    from anyon.config import Settings
    from anyon.wiring.mounts import MountInfo

app = typer.Typer(
    help="Mount: a bucket as the file system that projects live on.", no_args_is_help=True
)
_WAIT_SECONDS = 60.0


@app.command()
def use(
    storage: Annotated[str, typer.Argument(help="gcsfuse, rclone, or checkpoints (no mount).")],
    bucket: Annotated[str, typer.Option(help="gs://bucket or gs://bucket/prefix.")] = "",
    profile: Annotated[str, typer.Option(help="plan or tuned.")] = "tuned",
    as_json: Json = False,
) -> None:
    """Set where new projects live, in the home's own storage.toml; the next start of the server takes it."""
    settings = settings_or_exit(as_json)
    from anyon.config import SettingsError  # noqa: PLC0415 - beside the others
    from anyon.wiring import mounts  # noqa: PLC0415 - other commands start without it

    try:
        mounts.keep(settings, storage=storage, bucket=bucket, profile=profile)
    except SettingsError as error:
        show_error(error.code, str(error), "", as_json=as_json)
        raise typer.Exit(ExitCode.USAGE) from None
    now = settings_or_exit(as_json)
    if now.storage != storage:
        words = f"ANYON_STORAGE or config.toml says {now.storage}, and wins over this"
        show_error("bad_setting", words, "Take it out there.", as_json=as_json)
        raise typer.Exit(ExitCode.CONFLICT)
    if as_json:
        show_json({"storage": storage, "mount_bucket": bucket, "mount_profile": profile})
    else:
        say(f"New projects go to {bucket or 'the local disk'} after the server's next start.")


@app.command()
def status(as_json: Json = False) -> None:
    """Look at the mount: absent, alive, dead or silent. Exits with 8 unless it is alive."""
    info = _looked(_set(as_json), as_json=as_json)
    _show(info, as_json=as_json)
    if info.state.value != "alive":
        raise typer.Exit(ExitCode.UNAVAILABLE)


@app.command()
def up(as_json: Json = False) -> None:
    """Mount the bucket by hand; the server does so by itself."""
    settings = _set(as_json)
    from anyon.wiring import mounts  # noqa: PLC0415 - other commands start without it

    with _told(as_json), progress("Mounting …", quiet=as_json):
        info = asyncio.run(mounts.bring_up(settings, engine=settings.engine))
    _show(info, as_json=as_json)


@app.command()
def down(
    force: Annotated[
        bool, typer.Option("--force", help="Also while something uses it: that gets errors.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Unmount the bucket, once everything is in it."""
    settings = _set(as_json)
    from anyon.wiring import mounts  # noqa: PLC0415 - other commands start without it

    with _told(as_json):
        asyncio.run(mounts.take_down(settings, is_forced=force))
    _show(_looked(settings, as_json=as_json), as_json=as_json)


@app.command()
def prepare(as_json: Json = False) -> None:
    """Write gcsfuse's configuration file, for a mount that is systemd's (its unit calls this)."""
    settings = _set(as_json)
    from anyon.wiring import mounts  # noqa: PLC0415 - other commands start without it

    with _told(as_json):
        path = mounts.prepare(settings, engine=settings.engine)
    if as_json:
        show_json({"file": str(path)})
    else:
        say(f"written {path}")


@app.command()
def run(
    program: Annotated[str, typer.Option(help="rclone's path; default: found by name.")] = "",
    as_json: Json = False,
) -> None:
    """Mount with rclone and stay until it is unmounted, for a mount that is systemd's (its unit calls this)."""
    settings = _set(as_json)
    from anyon.wiring import mounts  # noqa: PLC0415 - other commands start without it

    with _told(as_json):
        argv, env = mounts.foreground(settings, engine=settings.engine, program=program)
    os.execve(argv[0], list(argv), {**os.environ, **env})  # noqa: S606 - no shell: the unit's process becomes rclone


@app.command()
def wait(as_json: Json = False) -> None:
    """Return once the mount is alive, after a minute at most (its unit calls this)."""
    settings = _set(as_json)
    end = time.monotonic() + _WAIT_SECONDS
    while True:
        info = _looked(settings, as_json=as_json)
        if info.state.value == "alive" or time.monotonic() > end:
            break
        time.sleep(0.2)
    _show(info, as_json=as_json)
    if info.state.value != "alive":
        raise typer.Exit(ExitCode.UNAVAILABLE)


def _set(as_json: bool) -> "Settings":
    settings = settings_or_exit(as_json)
    if settings.storage == "checkpoints":
        hint = "anyon mount use gcsfuse --bucket gs://…"
        show_error("mount_not_set", "no mount is set", hint, as_json=as_json)
        raise typer.Exit(ExitCode.MISSING)
    return settings


def _looked(settings: "Settings", *, as_json: bool) -> "MountInfo":
    from anyon.wiring import mounts  # noqa: PLC0415 - other commands start without it

    with _told(as_json):
        return asyncio.run(mounts.look(settings))


def _show(info: "MountInfo", *, as_json: bool) -> None:
    if as_json:
        show_json({"state": info.state.value, "device": info.device, "detail": info.detail})
    else:
        say(f"{info.state.value} {info.detail}".strip())


@contextmanager
def _told(as_json: bool) -> Iterator[None]:
    from anyon.domain.errors import AnyonError  # noqa: PLC0415 - other commands start without it

    try:
        yield
    except AnyonError as error:
        show_error(error.code, error.message, error.hint, as_json=as_json, status=error.status)
        raise typer.Exit(exit_code(error.status)) from None
