"""``anyon install``."""

import asyncio
import os
import pwd
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyon.cli.printing import say, show_error, show_json
from anyon.cli.sessions import Json, exit_code, settings_or_exit

if TYPE_CHECKING:
    from anyon.config import Settings
    from anyon.wiring.mount_units import MountUnit
    from anyon.wiring.systemd import Plan

app = typer.Typer(help="Install: let this machine run the server.", no_args_is_help=True)
SYSTEM_HOME = Path("/var/lib/anyon")


@app.callback()
def group() -> None:
    """Keep ``systemd`` a command of its own, whatever else is in the group."""


@app.command()
def systemd(  # noqa: PLR0917 - the options of a command
    user: Annotated[
        bool, typer.Option("--user", help="For your own service manager instead of the system's.")
    ] = False,
    show: Annotated[bool, typer.Option("--print", help="Print the units; write nothing.")] = False,
    uninstall: Annotated[
        bool, typer.Option("--uninstall", help="Remove the units; data stays.")
    ] = False,
    run_as: Annotated[str, typer.Option(help="The system user that the server runs as.")] = "anyon",
    home: Annotated[
        Path | None,
        typer.Option(
            help="The server's home; default: /var/lib/anyon, with --user as set.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="bubblewrap or docker; default: as set.", show_default=False)
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(help="Where the units go; default: systemd's own.", show_default=False),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite or remove units changed by hand.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write systemd's units: the server's, and a timer that runs `anyon doctor` every hour.

    In Docker the server is confined as far as it goes; with bubblewrap its sandboxes go on when
    it stops. systemctl itself is yours to call: what to type is printed.
    """
    settings = settings_or_exit(as_json, {"engine": engine})
    from anyon.domain.errors import AnyonError  # noqa: PLC0415 - other commands start without it
    from anyon.wiring import systemd as units  # noqa: PLC0415 - as above

    place = directory or (_user_directory() if user else units.SYSTEM_DIRECTORY)
    try:
        if uninstall:
            _report(place, "removed", units.uninstall(place, force=force), as_json=as_json)
            if not as_json:
                say(f"Then: systemctl {'--user ' if user else ''}daemon-reload. Data stays.")
            return
        plan = _plan(settings, user=None if user else run_as, home=home)
        rendered = units.render(plan)
        if show:
            if as_json:
                show_json({"units": dict(rendered)})
            for name, text in () if as_json else rendered.items():
                say(f"# {place / name}\n{text}")
            return
        changed = units.install(place, rendered, force=force)
    except AnyonError as error:
        show_error(error.code, error.message, error.hint, as_json=as_json, status=error.status)
        raise typer.Exit(exit_code(error.status)) from None
    _report(place, "written", changed, as_json=as_json)
    if not as_json:
        _say_what_follows(plan)


def _plan(settings: "Settings", *, user: str | None, home: Path | None) -> "Plan":
    from anyon.wiring.engines import choose  # noqa: PLC0415 - it brings the engines
    from anyon.wiring.mount_units import settings as mount_settings  # noqa: PLC0415 - as above
    from anyon.wiring.systemd import Plan  # noqa: PLC0415 - as above

    name = settings.engine

    async def chosen() -> str:
        engine = await choose(settings)
        await engine.close()
        return engine.name

    if name == "auto":
        name = asyncio.run(chosen())
    settled = {} if settings.port == 8080 else {"ANYON_PORT": str(settings.port)}
    if settings.host != "127.0.0.1":
        settled["ANYON_HOST"] = settings.host
    if settings.store:
        settled["ANYON_STORE"] = settings.store
    at = home.absolute() if home else (SYSTEM_HOME if user else settings.home)
    mount = _mount_unit(settings, at)
    if mount is not None:
        settled |= mount_settings(mount, settings.mount_bucket)
    return Plan(
        mount=mount,
        program=_program(),
        home=at,
        engine=name,
        user=user,
        uid=_uid(user),
        environment=settled,
    )


def _mount_unit(settings: "Settings", home: Path) -> "MountUnit | None":
    """Return the unit of the bucket that is set."""
    if settings.storage == "checkpoints":
        return None
    from anyon.wiring.mount_units import MountUnit  # noqa: PLC0415 - other commands start without it
    from anyon.wiring.mounts import PLACE  # noqa: PLC0415 - as above

    return MountUnit(
        mounter=settings.storage,
        program=_mounter(settings.storage),
        unmounter=Path(shutil.which("fusermount3") or "/usr/bin/fusermount3"),
        bucket=settings.mount_bucket.removeprefix("gs://").partition("/")[0],
        place=home / PLACE,
        config=home / "mount" / "gcsfuse.yaml",
        profile=settings.mount_profile,
    )


def _mounter(name: str) -> Path:
    """Return the mounter's program: one beside ours (a wheel brings rclone), else the machine's."""
    beside = Path(sys.executable).with_name(name)
    return beside if beside.exists() else Path(shutil.which(name) or f"/usr/bin/{name}")


def _program() -> Path:
    """Return this installation's own ``anyon``, wherever it was called from."""
    beside = Path(sys.executable).with_name("anyon")
    return beside if beside.exists() else Path(sys.argv[0]).absolute()


def _uid(user: str | None) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid if user else None
    except KeyError:
        return None


def _user_directory() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "systemd" / "user"


def _report(place: Path, verb: str, names: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        show_json({"directory": str(place), verb: list(names)})
        return
    for name in names:
        say(f"{verb} {place / name}")
    if not names:
        say("Nothing had to be done.")


def _say_what_follows(plan: "Plan") -> None:
    if plan.user is not None and _uid(plan.user) is None:
        groups = "--groups docker " if plan.engine == "docker" else ""
        say(
            f"Make the user, then repeat this: useradd --system {groups}--home-dir {plan.home}"
            f" --shell /usr/sbin/nologin {plan.user}"
        )
    if plan.mount is not None and (os.geteuid() if plan.user is None else plan.user != "root"):
        say(
            "Let that user's mount be seen by containers: put user_allow_other into /etc/fuse.conf."
        )
    control = "systemctl" if plan.user else "systemctl --user"
    mount = f"{plan.mount.name.removesuffix('.service')} " if plan.mount else ""
    names = f"{mount}anyon-server anyon-check.timer"
    say(f"Start it: {control} daemon-reload && {control} enable --now {names}")
    if plan.user is None:
        say("Let it run while you are logged out: loginctl enable-linger")
