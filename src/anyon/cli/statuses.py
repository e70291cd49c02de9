"""``anyon status``: how everything stands, once or for as long as one looks."""

import asyncio
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anyon.cli.printing import harmless, say, show_json, show_table
from anyon.cli.sessions import ExitCode, Json, ask

if TYPE_CHECKING:
    from anyon.sdk.clients import Client
    from anyon.sdk.statuses import ProjectStatus, Status

COLUMNS = ("project", "phase", "for", "tasks", "runs", "held by", "unsaved", "saved", "next")
_TASKS = (("inprogress", "at work"), ("inreview", "in review"), ("todo", "to do"))
_STYLES = {"running": "green", "frozen": "cyan", "error": "bold red", "stopped_unsaved": "yellow"}
_LATE_SECONDS = 300.0


def status(
    ctx: typer.Context,
    once: Annotated[
        bool, typer.Option("--once", help="Print it and end, also on a terminal.")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.2, max=3600, help="Seconds between looks.")
    ] = 2.0,
    as_json: Json = False,
) -> None:
    """Show all projects: phases, tasks, what runs, who holds them awake, how old their checkpoints are.

    On a terminal it stays and shows what changes, until Ctrl-C. Looking wakes nothing.
    """
    if as_json or once or not sys.stdout.isatty():
        found = ask(ctx, lambda client: client.status(), as_json=as_json)
        if as_json:
            show_json(found)
        else:
            show_table(COLUMNS, [row(one, found.at) for one in found.projects])
            say(headline(found))
        return
    try:
        ask(ctx, lambda client: _watch(client, interval), as_json=False)
    except typer.Exit as end:
        raise typer.Exit(
            ExitCode.OK if end.exit_code == ExitCode.INTERRUPTED else end.exit_code
        ) from None


async def _watch(client: "Client", interval: float) -> None:
    """Show it again and again; a server that is away for a while is waited for."""
    from rich.live import Live  # noqa: PLC0415 - start-up stays quick without it

    from anyon.sdk.errors import UnreachableError  # noqa: PLC0415 - as above

    found = await client.status()  # what is wrong from the first is told as by any command
    with Live(auto_refresh=False) as live:
        while True:
            live.update(_picture(found, ""), refresh=True)
            await asyncio.sleep(interval)
            try:
                found = await client.status()
            except UnreachableError:
                live.update(_picture(found, "the server does not answer"), refresh=True)


def headline(found: "Status") -> str:
    """Return a line that sums it up."""
    phases = [one.phase for one in found.projects]
    counts = ", ".join(f"{phases.count(phase)} {phase}" for phase in sorted(set(phases)))
    ages = [one.unsaved_seconds for one in found.projects if one.unsaved_seconds is not None]
    oldest = f"; oldest unsaved work {words(timedelta(seconds=max(ages)))}" if ages else ""
    return f"anyon {found.version}: {len(phases)} projects{': ' if counts else ''}{counts}{oldest}"


def row(one: "ProjectStatus", now: datetime) -> Sequence[str]:
    """Return a project's cells, in the order of ``COLUMNS``."""
    tasks = [f"{one.tasks[key]} {name}" for key, name in _TASKS if one.tasks.get(key)]
    held = [f"{reason}{f' x{n}' if n > 1 else ''}" for reason, n in sorted(one.leases.items())]
    coming = "-"
    if one.position is not None:
        coming = f"waits, place {one.position}"
    elif one.next_step is not None and one.next_step_at is not None:
        coming = f"{one.next_step} in {words(one.next_step_at - now)}"
    return (
        one.name,
        one.phase,
        words(now - one.phase_since),
        ", ".join(tasks) or "-",
        str(one.processes),
        ", ".join(held) or "-",
        "-" if one.unsaved_seconds is None else words(timedelta(seconds=one.unsaved_seconds)),
        "-" if one.saved_at is None else f"{words(now - one.saved_at)} ago",
        coming,
    )


def words(length: timedelta) -> str:
    """Return a length as people say it: the two largest units at most."""
    seconds = max(0, int(length.total_seconds()))
    for name, size, smaller, part in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if seconds >= size:
            rest = seconds % size // part
            return f"{seconds // size}{name}{f' {rest}{smaller}' if rest else ''}"
    return f"{seconds}s"


def _picture(found: "Status", trouble: str) -> Any:
    from rich.console import Group  # noqa: PLC0415 - start-up stays quick without it
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in COLUMNS:
        table.add_column(name.upper(), overflow="fold")
    for one in found.projects:
        cells = [Text(harmless(cell).replace("\n", " ")) for cell in row(one, found.at)]
        cells[1].stylize(_STYLES.get(one.phase, "dim"))
        if (one.unsaved_seconds or 0) > _LATE_SECONDS:
            cells[6].stylize("bold red")
        table.add_row(*cells)
    line = Text(f"{found.at.astimezone():%H:%M:%S}  {headline(found)}", style="dim")
    return Group(table, line, Text(trouble, style="bold red")) if trouble else Group(table, line)
