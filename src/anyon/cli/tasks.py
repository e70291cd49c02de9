"""``anyon task``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anyon.cli import logs
from anyon.cli.bars import watched
from anyon.cli.diffs import show_diff
from anyon.cli.printing import say, show_json, show_table
from anyon.cli.sessions import Json, ProjectName, TaskId, ask
from anyon.sdk.errors import ApiError

if TYPE_CHECKING:
    from anyon.sdk.clients import Client
    from anyon.sdk.models import TaskAttempt, TaskWithAttemptStatus

app = typer.Typer(help="Tasks: pieces of work for a coding agent.", no_args_is_help=True)

Agent = Annotated[
    str | None, typer.Option(help="Agent; default: the project's.", show_default=False)
]
Variant = Annotated[str | None, typer.Option(help="The agent's variant.", show_default=False)]
Base = Annotated[
    str | None,
    typer.Option(help="Branch to begin from; default: the current one.", show_default=False),
]
TITLE_LENGTH = 80
_STARTING = "Starting the task"


@app.command()
def create(
    *,
    ctx: typer.Context,
    project: ProjectName,
    description: Annotated[
        str | None,
        typer.Argument(help="What is to be done; - reads it from stdin.", show_default=False),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Default: the description's first line.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Read the description from a file.", show_default=False)
    ] = None,
    start: Annotated[bool, typer.Option("--start", "-s", help="Start it at once.")] = False,
    agent: Agent = None,
    variant: Variant = None,
    base: Base = None,
    as_json: Json = False,
) -> None:
    """Make a task; with --start, start it."""
    from anyon.sdk import requests  # noqa: PLC0415 - start-up stays quick

    words = given_text(description, file)
    name = title or _first_line(words)
    if not name:
        raise typer.BadParameter("say what is to be done: a description, --file or --title")

    async def work(client: "Client") -> "TaskWithAttemptStatus":
        found = await client.projects.find(project)
        new = requests.CreateTask(project_id=found.id, title=name, description=words)
        if not start:
            return await client.tasks.create(new)
        profile = _profile(agent, variant, found.default_agent)
        both = requests.CreateAndStartTask(task=new, executor_profile_id=profile, base_branch=base)
        call = client.tasks.create_and_start(both)
        return await watched(client, found.id, call, words=_STARTING, quiet=as_json)

    task = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(task)
    else:
        say(f"made task {task.id}: {task.title}")


@app.command()
def start(
    *,
    ctx: typer.Context,
    task: TaskId,
    agent: Agent = None,
    variant: Variant = None,
    base: Base = None,
    as_json: Json = False,
) -> None:
    """Start a new attempt at a task."""
    from anyon.sdk.requests import CreateAttempt  # noqa: PLC0415 - start-up stays quick

    async def work(client: "Client") -> "TaskAttempt":
        found = await find(client, task)
        default = (await client.projects.get(found.project_id)).default_agent
        profile = _profile(agent, variant, default)
        new = CreateAttempt(task_id=found.id, executor_profile_id=profile, base_branch=base)
        call = client.attempts.start(new)
        return await watched(client, found.project_id, call, words=_STARTING, quiet=as_json)

    attempt = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(attempt)
    else:
        say(f"started attempt {attempt.id} with {attempt.executor} on branch {attempt.branch}")


@app.command("list")
def list_all(ctx: typer.Context, project: ProjectName, as_json: Json = False) -> None:
    """List a project's tasks, newest first."""

    async def work(client: "Client") -> "list[TaskWithAttemptStatus]":
        return list(await client.tasks.list((await client.projects.find(project)).id))

    tasks = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(tasks)
    else:
        rows = [(t.id, t.status, _state(t), t.executor or "-", t.title) for t in tasks]
        show_table(["id", "status", "attempt", "agent", "title"], rows)


@app.command()
def show(ctx: typer.Context, task: TaskId, as_json: Json = False) -> None:
    """Show a task, its attempts and their processes."""

    async def work(client: "Client") -> dict[str, Any]:
        found = await find(client, task)
        attempts = [
            {"attempt": one, "processes": list(await client.attempts.processes(one.id))}
            for one in await client.attempts.list(found.id)
        ]
        return {"task": found, "attempts": attempts}

    shown = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(shown)
        return
    found = shown["task"]
    say(f"{found.title}\nid: {found.id}\nstatus: {found.status} ({_state(found)})")
    if found.description and found.description.strip() != found.title:
        say(f"\n{found.description}\n")
    for one in shown["attempts"]:
        attempt = one["attempt"]
        say(
            f"attempt {attempt.id}: {attempt.executor}, {attempt.branch} -> {attempt.target_branch}"
        )
        for process in one["processes"]:
            code = "" if process.exit_code is None else f" ({process.exit_code})"
            say(f"  process {process.id}: {process.run_reason} {process.status}{code}")


@app.command("logs")
def show_logs(
    *,
    ctx: typer.Context,
    task: TaskId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the task stops.")
    ] = False,
    attempt: Annotated[
        str | None, typer.Option(help="An attempt's id; default: the newest.", show_default=False)
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="An agent's own output as it is.")] = False,
    as_json: Json = False,
) -> None:
    """Print what the task's processes wrote; -f follows, over dropped connections."""

    async def work(client: "Client") -> list[dict[str, Any]]:
        found = await _attempt(client, task, attempt)
        if as_json:
            return await logs.collect(client, found, follow=follow)
        await logs.show(client, found, follow=follow, raw=raw)
        return []

    shown = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json({"processes": shown})


@app.command()
def stop(ctx: typer.Context, task: TaskId, as_json: Json = False) -> None:
    """Stop what runs of a task; what it changed is kept."""

    async def work(client: "Client") -> "TaskAttempt":
        found = await _attempt(client, task, None)
        await client.attempts.stop(found.id)
        return found

    attempt = ask(ctx, work, as_json=as_json, words="Stopping the task …")
    if as_json:
        show_json(attempt)
    else:
        say(f"stopped attempt {attempt.id}")


@app.command()
def diff(
    ctx: typer.Context,
    task: TaskId,
    stat: Annotated[
        bool, typer.Option("--stat", help="Only the files and the line counts.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what the newest attempt changed."""

    async def work(client: "Client") -> list[Any]:
        found = await _attempt(client, task, None)
        return list(await client.attempts.diff(found.id, stats_only=stat))

    changes = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(changes)
    else:
        show_diff(changes, stat=stat)


@app.command()
def merge(ctx: typer.Context, task: TaskId, as_json: Json = False) -> None:
    """Put the newest attempt's change on its target branch as one commit."""

    async def work(client: "Client") -> tuple[Any, Any]:
        found = await _attempt(client, task, None)
        await client.attempts.merge(found.id)
        return found, await client.attempts.status(found.id)

    attempt, status = ask(ctx, work, as_json=as_json, words="Merging …")
    commit = status.merges[0].merge_commit if status.merges else ""
    if as_json:
        show_json({"attempt": attempt, "commit": commit})
    else:
        say(f"merged {attempt.branch} into {attempt.target_branch} as {commit}")


async def find(client: "Client", name: str) -> "TaskWithAttemptStatus":
    """Return the task with that id or that beginning of an id."""
    name = name.lower()
    if len(name) == 36:
        return await client.tasks.get(name)
    fits = [
        task
        for project in (await client.projects.list() if len(name) >= 4 else ())
        for task in await client.tasks.list(project.id)
        if str(task.id).startswith(name)
    ]
    if len(fits) == 1:
        return fits[0]
    if fits:
        ids = ", ".join(str(task.id) for task in fits)
        raise ApiError(409, "ambiguous", f"{name!r} fits several tasks", f"Name one: {ids}")
    hint = "`anyon task list <project>` shows what there is; four characters of an id are enough."
    raise ApiError(404, "not_found", f"there is no task {name!r}", hint)


async def _attempt(client: "Client", task: str, attempt: str | None) -> "TaskAttempt":
    if attempt is not None:
        return await client.attempts.get(attempt)
    found = await find(client, task)
    attempts = await client.attempts.list(found.id)
    if not attempts:
        hint = f"Start it with `anyon task start {found.id}`."
        raise ApiError(409, "not_started", "the task has not been started", hint)
    return attempts[0]


def given_text(given: str | None, file: Path | None) -> str | None:
    """Return a text that is given as an argument (``-``: on stdin) or in a file; None where it is not."""
    if given is not None and file is not None:
        raise typer.BadParameter("give the text or --file, not both")
    if given == "-":
        return sys.stdin.read()
    if file is None:
        return given
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}") from None


def _first_line(words: str | None) -> str:
    lines = (words or "").strip().splitlines()
    return lines[0].strip()[:TITLE_LENGTH] if lines else ""


def _profile(agent: str | None, variant: str | None, default: str | None) -> Any:
    from anyon.sdk.models import ExecutorProfileId  # noqa: PLC0415 - start-up stays quick

    if agent is None and variant is None:
        return None
    name = agent or default
    if name is None:
        raise typer.BadParameter("--variant needs --agent: the project has no default agent")
    return ExecutorProfileId(executor=name, variant=variant)


def _state(task: "TaskWithAttemptStatus") -> str:
    if task.has_in_progress_attempt:
        return "running"
    if task.has_merged_attempt:
        return "merged"
    if task.last_attempt_failed:
        return "failed"
    return "over" if task.executor else "not started"
