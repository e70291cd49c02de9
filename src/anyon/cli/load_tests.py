"""``anyon load-test``: a known load on any server, and a report of how it bore it."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyon.cli.printing import bars, say, show_error, show_json, show_table
from anyon.cli.sessions import ExitCode, Json, Session, ask, server_address, settings_or_exit
from anyon.loads.profiles import DESCRIPTIONS, PROFILES, Profile
from anyon.loads.results import Result, latencies

if TYPE_CHECKING:
    from anyon.sdk.clients import Client

LABEL_PROJECT = "dev.anyon.project"
"""The label of Anyon's containers (``engines/docker_options.py``, which a client does not have)."""
_HERE = ("http://127.0.0.1:", "http://localhost:", "http://[::1]:")


def add_to(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command("load-test", help=load_test.__doc__, epilog=_epilog())(load_test)


def _epilog() -> str:
    return "Profiles: " + "; ".join(f"{name}: {words}" for name, words in DESCRIPTIONS.items())


def load_test(
    ctx: typer.Context,
    *,
    profile: Annotated[str, typer.Option(help="plan, burst, herd or soak.")] = "plan",
    projects: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Default: the profile's.", show_default=False),
    ] = None,
    tasks: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="In each project.", show_default=False),
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(min=0.001, max=1000, help="Of a soak.", show_default=False),
    ] = None,
    agent: Annotated[str, typer.Option(help="The projects' default agent.")] = "shell",
    script: Annotated[
        str | None,
        typer.Option(help="What each task is told; default: a short script.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the report; default: load-test-<profile>-<time>.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the projects there.")] = False,
    as_json: Json = False,
) -> None:
    """Put a known load on a server and write a report: Markdown, JSON, a chart, the metrics.

    The projects it makes are deleted at the end, also when it is interrupted. Exits with 1 if
    anything failed.
    """
    wanted = _profile(
        profile,
        projects=projects,
        tasks=tasks,
        hours=hours,
        agent=agent,
        script=script,
        as_json=as_json,
    )
    now = datetime.now(UTC)
    place = out or Path(f"load-test-{wanted.name}-{now:%Y%m%d-%H%M%S}")
    listing = _engine_listing(ctx, as_json)

    with bars(quiet=as_json) as told:

        async def work(client: "Client") -> Result:
            from anyon.loads.drives import Drive  # noqa: PLC0415 - other commands start without it

            drive = Drive(client, wanted, told, prefix=f"load-{now:%H%M%S}")
            return await drive.run(keep=keep, engine_listing=listing)

        result = ask(ctx, work, as_json=as_json)
    _show(result, place, as_json=as_json)
    if result.failed:
        raise typer.Exit(ExitCode.ERROR)


def _profile(
    name: str,
    *,
    projects: int | None,
    tasks: int | None,
    hours: float | None,
    agent: str,
    script: str | None,
    as_json: bool,
) -> Profile:
    base = PROFILES.get(name)
    if base is None:
        known = ", ".join(PROFILES)
        show_error(
            "unknown_profile",
            f"there is no profile {name!r}",
            f"Name one of {known}.",
            as_json=as_json,
        )
        raise typer.Exit(ExitCode.USAGE)
    if (tasks is not None and not base.tasks) or (hours is not None and not base.seconds):
        what = "--tasks" if tasks is not None and not base.tasks else "--hours"
        show_error(
            "option_without_meaning",
            f"the profile {name!r} has no use for {what}",
            "Leave it out, or take --profile plan or soak.",
            as_json=as_json,
        )
        raise typer.Exit(ExitCode.USAGE)
    return replace(
        base,
        projects=projects or base.projects,
        tasks=tasks or base.tasks,
        seconds=3600 * hours if hours is not None else base.seconds,
        agent=agent,
        script=script if script is not None else base.script,
    )


def _engine_listing(ctx: typer.Context, as_json: bool) -> Callable[[], str | None]:
    """Return what asks this machine's Docker for the containers; for a server elsewhere there is none."""
    session: Session = ctx.obj
    is_here = server_address(session, settings_or_exit(as_json)).startswith(_HERE)

    def listing() -> str | None:
        docker = shutil.which("docker")
        if not is_here or docker is None:
            return None
        command = [docker, "ps", "--all", "--filter", f"label={LABEL_PROJECT}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout if done.returncode == 0 else None

    return listing


def _show(result: Result, place: Path, *, as_json: bool) -> None:
    from anyon.loads.reports import write  # noqa: PLC0415 - the chart's library is heavy

    try:
        write(result, place)
    except OSError as error:
        # The measurement is not lost with the disk: it is printed instead.
        show_json(result.as_json())
        show_error(
            "report_not_written", str(error), "Name another place with --out.", as_json=as_json
        )
        raise typer.Exit(ExitCode.ERROR) from None
    if as_json:
        show_json({**result.as_json(), "report": str(place)})
        return
    show_table(
        ("operation", "count", "failed", "p50", "p95", "p99", "max"),
        [
            (
                one.operation,
                one.count,
                one.failed,
                *(
                    f"{1000 * value:.0f} ms" if one.count > one.failed else "-"
                    for value in (
                        one.shares["p50"],
                        one.shares["p95"],
                        one.shares["p99"],
                        one.longest,
                    )
                ),
            )
            for one in latencies(result.samples)
        ],
    )
    say(f"{result.wall_seconds:.1f} s in all, {result.failed} failed. The report is in {place}.")
