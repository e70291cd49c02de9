"""``anyon project stop``, ``start``, ``hold``, ``release`` and ``set``: how long a project stays awake."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from anyon.cli.bars import watched
from anyon.cli.printing import say, show_json
from anyon.cli.sessions import Json, ProjectName, ask

if TYPE_CHECKING:
    from anyon.sdk.clients import Client
    from anyon.sdk.lives import Awake, Lease
    from anyon.sdk.models import Project

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_Time = Annotated[
    str | None,
    typer.Option(help="Such as 90s, 30m, 2h, 7d; 0 never; default is the server's."),
]


def length(text: str) -> timedelta:
    """Return the length that people write as 90s, 30m, 2h or 7d; plain 0 is none."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "")
    if not number.isascii() or not number.isdigit() or (not unit and int(number)):
        raise typer.BadParameter(f"{text!r} is no length; write 90s, 30m, 2h or 7d")
    if len(number) > 9:
        raise typer.BadParameter(f"{text!r} is too long")
    return timedelta(seconds=int(number) * _UNITS.get(unit, 0))


Force = Annotated[
    bool,
    typer.Option("--force", help="End what runs in it (TERM, then KILL) and release its holds."),
]


def stop(
    ctx: typer.Context,
    project: ProjectName,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Stop a project's container, saved first; its next work wakes it."""

    async def work(client: "Client") -> "Awake":
        return await client.lives.stop((await client.projects.find(project)).id, force=force)

    _show_asleep(project, ask(ctx, work, as_json=as_json, words="Stopping …"), as_json=as_json)


def archive(
    ctx: typer.Context, project: ProjectName, force: Force = False, as_json: Json = False
) -> None:
    """Stop a project and let its local files go, all of it saved first; its next work brings it back."""

    async def work(client: "Client") -> "Awake":
        return await client.lives.archive((await client.projects.find(project)).id, force=force)

    _show_asleep(project, ask(ctx, work, as_json=as_json, words="Archiving …"), as_json=as_json)


def _show_asleep(project: str, found: "Awake", *, as_json: bool) -> None:
    if as_json:
        show_json(found)
    elif found.phase == "stopped_unsaved":
        say(f"{project} is stopped, but its last state is not in the store yet: it is tried again")
        say(f"`anyon project events {project}` says why")
    elif found.phase in {"running", "frozen"}:
        say(f"{project} will be stopped in a moment: somebody looks at it just now")
    else:
        say(f"{project} is {found.phase}")


def start(ctx: typer.Context, project: ProjectName, as_json: Json = False) -> None:
    """Wake a project before its work does; it sleeps again after its idle time."""

    async def work(client: "Client") -> "Awake":
        found = (await client.projects.find(project)).id
        return await watched(
            client, found, client.lives.start(found), words="Waking", quiet=as_json
        )

    found = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(found)
    else:
        say(f"{project} is {found.phase}")


def hold(
    ctx: typer.Context,
    project: ProjectName,
    reason: Annotated[str, typer.Option(help="Why; others see it.", show_default=False)],
    time: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 7d at most.")] = "1h",
    as_json: Json = False,
) -> None:
    """Wake a project and keep it awake for a time, whatever happens in it."""
    from anyon.sdk.requests import Hold  # noqa: PLC0415 - start-up stays quick

    asked = length(time)
    if not timedelta(0) < asked <= timedelta(days=7):
        raise typer.BadParameter("a hold lasts at most 7 days")
    new = Hold(reason=reason, minutes=asked.total_seconds() / 60)

    async def work(client: "Client") -> "Lease":
        found = (await client.projects.find(project)).id
        call = client.lives.hold(found, new)
        return await watched(client, found, call, words="Waking", quiet=as_json)

    lease = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(lease)
    else:
        say(f"{project} is held until {lease.expires_at:%Y-%m-%d %H:%M} UTC ({lease.id})")


def release(
    ctx: typer.Context,
    project: ProjectName,
    lease: Annotated[
        str | None, typer.Argument(help="A hold's id; without one, all.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Give holds back before their end, so that the project may sleep."""

    async def work(client: "Client") -> list[str]:
        found = (await client.projects.find(project)).id
        if lease is not None:
            await client.lives.release(found, lease)
            return [lease]
        held = [str(one.id) for one in (await client.lives.awake(found)).leases if one.is_hold]
        for one in held:
            await client.lives.release(found, one)
        return held

    released = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json({"released": released})
    else:
        say(f"{project}: released {len(released)}")


def set_times(
    *,
    ctx: typer.Context,
    project: ProjectName,
    freeze_after: _Time = None,
    stop_after: _Time = None,
    archive_after: _Time = None,
    as_json: Json = False,
) -> None:
    """Set a project's own idle times; what is not given stays."""
    from anyon.sdk.requests import UpdateProject  # noqa: PLC0415 - start-up stays quick

    given = {
        "freeze_after": freeze_after,
        "stop_after": stop_after,
        "archive_after": archive_after,
    }
    times = {
        name: None if text == "default" else int(length(text).total_seconds())
        for name, text in given.items()
        if text is not None
    }
    if not times:
        raise typer.BadParameter("say which: --freeze-after, --stop-after or --archive-after")

    async def work(client: "Client") -> "Project":
        found = await client.projects.find(project)
        # On the wire scripts that are not given are cleared, so they go along as they are.
        kept = ("setup_script", "dev_script", "cleanup_script", "copy_files")
        same = {name: getattr(found, name) for name in kept}
        return await client.projects.update(
            found.id, UpdateProject.model_validate({**same, **times})
        )

    changed = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(changed)
        return
    for name in given:
        value = getattr(changed, name)
        words = "the server's" if value is None else "never" if value == 0 else f"{value} s"
        say(f"{name.replace('_', ' ')}: {words}")
