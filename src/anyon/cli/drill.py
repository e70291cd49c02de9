"""``anyon drill``: a loss of the machine, carried out, so that what is promised is measured."""

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyon.cli import outputs
from anyon.cli.printing import progress, say, show_error, show_json, show_table
from anyon.cli.sessions import ExitCode, Json
from anyon.sdk.errors import ApiError

if TYPE_CHECKING:
    from anyon.sdk.clients import Client

app = typer.Typer(help="Drills: a bad day, carried out on purpose.", no_args_is_help=True)

FILES = 8
# One generation after the other, each file by a rename: at any instant no file is ahead of one
# that is written before it, and none is more than one generation behind.
WRITER = f"""
mkdir -p numbered; i=0
while :; do
  i=$((i+1)); at=$(date +%s.%N)
  for f in $(seq {FILES}); do echo "$i $at" > numbered/.new; mv numbered/.new "numbered/$f"; done
done
"""
READER = f'for f in $(seq {FILES}); do cat "numbered/$f"; done'
_SELF = [sys.executable, "-c", "from anyon.cli.main import main; main()"]
_PATIENCE = 120.0


class DrillError(Exception):
    """The drill could not be carried out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What a project lost: ``rpo_seconds`` is the age of its newest restored write at the kill."""

    project: str
    generation: int
    rpo_seconds: float
    rto_seconds: float
    is_mixture: bool


@app.callback()
def group() -> None:
    """Keep ``machine-loss`` a command of its own, whatever else is in the group."""


@app.command("machine-loss")
def machine_loss(
    *,
    projects: Annotated[int, typer.Option(min=1, help="How many projects are at work.")] = 3,
    interval: Annotated[float, typer.Option(min=0.5, help="Seconds between checkpoints.")] = 5.0,
    rpo: Annotated[
        float | None,
        typer.Option(
            help="Seconds of work that may be lost; default: two intervals and 10 s.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[str, typer.Option(help="auto, bubblewrap or docker.")] = "auto",
    directory: Annotated[
        Path | None,
        typer.Option(
            "--in", help="Where the two homes and the store are made.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Kill a server at a random moment, delete all it had, recover elsewhere; measure RPO and RTO.

    It works in a temporary directory, with servers of its own; yours is not touched.
    """
    allowed = rpo if rpo is not None else 2 * interval + 10
    place = Path(tempfile.mkdtemp(prefix="anyon-drill-", dir=directory))
    try:
        with progress("Losing a machine …", quiet=as_json):
            losses = asyncio.run(_drill(place, projects, interval, engine))
    except (DrillError, ApiError, OSError) as error:
        show_error("drill_failed", str(error), f"Look in {place}.", as_json=as_json)
        raise typer.Exit(ExitCode.ERROR) from None
    shutil.rmtree(place, ignore_errors=True)
    bad = [one for one in losses if one.is_mixture or one.rpo_seconds > allowed]
    if as_json:
        show_json({"rpo_allowed": allowed, "projects": [asdict(one) for one in losses]})
    else:
        _show(losses, allowed)
    if bad:
        raise typer.Exit(ExitCode.ERROR)


def _show(losses: list[Loss], allowed: float) -> None:
    rows = [
        (
            one.project,
            one.generation,
            f"{one.rpo_seconds:.2f} s",
            f"{one.rto_seconds:.2f} s",
            "MIXTURE" if one.is_mixture else "one instant",
        )
        for one in losses
    ]
    show_table(["project", "generation", "rpo", "rto", "files are of"], rows)
    say(
        f"RPO {max(one.rpo_seconds for one in losses):.2f} s (allowed {allowed:.0f} s), "
        f"RTO {max(one.rto_seconds for one in losses):.2f} s"
    )


async def _drill(place: Path, count: int, interval: float, engine: str) -> list[Loss]:
    first, second, store = place / "lost", place / "new", place / "store"
    names = [f"drill-{number}" for number in range(1, count + 1)]
    kept = {"ANYON_STORE": str(store), "ANYON_CHECKPOINT_INTERVAL": f"{int(interval * 1000)}ms"}
    try:
        killed_at = await _work_until_killed(first, engine, kept, names, interval)
        await _delete_everything(first, engine)
        began = time.monotonic()
        await _recover(second, store)
        async with _serving(second, engine, kept) as (client, _):
            return [await _look(client, name, killed_at, began) for name in names]
    finally:  # whatever failed, no container stays behind
        for home in (first, second):
            if home.is_dir():
                await _delete_everything(home, engine)


async def _work_until_killed(
    home: Path, engine: str, settings: Mapping[str, str], names: list[str], interval: float
) -> float:
    from anyon.sdk.requests import CreateProject, Exec  # noqa: PLC0415 - start-up stays quick

    async with _serving(home, engine, settings) as (client, server):
        for name in names:
            project = await client.projects.create(CreateProject(name=name))
            await client.projects.exec(project.id, Exec(argv=["sh", "-c", WRITER]))
        deadline = time.monotonic() + _PATIENCE
        for name in names:  # the first checkpoints must be there: before them all is lost
            project = await client.projects.find(name)
            while not await client.lives.checkpoints(project.id):
                if time.monotonic() > deadline:
                    raise DrillError(f"{name} was not saved in {_PATIENCE:.0f} s")
                await asyncio.sleep(0.1)
        await asyncio.sleep(interval * (1 + 2 * random.random()))  # noqa: S311 - a moment, no secret
        killed_at = time.time()
        server.send_signal(signal.SIGKILL)
        await asyncio.to_thread(server.wait)
    return killed_at


async def _delete_everything(home: Path, engine: str) -> None:
    """Delete what the server had: containers through one that keeps nothing, then all files."""
    async with _serving(home, engine, {"ANYON_STORE": "none"}) as (client, _):
        for project in await client.projects.list():
            await client.projects.delete(project.id)
    await asyncio.to_thread(shutil.rmtree, home)


async def _recover(home: Path, store: Path) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [*_SELF, "recover", "--from", str(store), "--take-over", "--json"],
        env=os.environ | {"ANYON_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DrillError(f"recover failed: {done.stderr or done.stdout}")


async def _look(client: "Client", name: str, killed_at: float, began: float) -> Loss:
    from anyon.sdk.requests import Exec  # noqa: PLC0415 - start-up stays quick

    project = await client.projects.find(name)
    process = await client.projects.exec(project.id, Exec(argv=["sh", "-c", READER]))
    output = await outputs.collect(client, process.id, follow=True)
    ready = time.monotonic() - began
    lines = [line.split() for line in output["stdout"].splitlines()]
    if len(lines) != FILES:
        raise DrillError(f"{name} has {len(lines)} of {FILES} files: {json.dumps(output)}")
    generations = [int(generation) for generation, _ in lines]
    newest = max(float(at) for _, at in lines)
    return Loss(
        project=name,
        generation=generations[0],
        rpo_seconds=max(0.0, killed_at - newest),
        rto_seconds=ready,
        is_mixture=not is_of_one_instant(generations),
    )


def is_of_one_instant(generations: list[int]) -> bool:
    """Say whether files that are written in turn, again and again, can be so at one instant."""
    falls = sorted(generations, reverse=True) == generations
    return falls and generations[0] - generations[-1] <= 1


@asynccontextmanager
async def _serving(
    home: Path, engine: str, settings: Mapping[str, str]
) -> "AsyncIterator[tuple[Client, subprocess.Popen[bytes]]]":
    from anyon.sdk.clients import Client  # noqa: PLC0415 - start-up stays quick

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = os.environ | {"ANYON_HOME": str(home), **settings}
    command = [*_SELF, "serve", "--engine", engine, "--host", "127.0.0.1", "--port", str(port)]
    path = home.parent / f"{home.name}.log"
    with path.open("ab") as log:
        server = await asyncio.to_thread(subprocess.Popen, command, env=env, stdout=log, stderr=log)
    try:
        async with Client(f"http://127.0.0.1:{port}", None) as client:
            await _until_it_answers(client, server, path)
            yield client, server
    finally:
        if server.poll() is None:
            server.terminate()
        await asyncio.to_thread(server.wait)


async def _until_it_answers(client: "Client", server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            await client.projects.list()
        except ApiError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise DrillError(f"the server did not start; see {log}") from None
            await asyncio.sleep(0.1)
        else:
            return
