"""What a task's processes wrote: setup, agent and cleanup, one after the other."""

import asyncio
import sys
from typing import TYPE_CHECKING, Any
from uuid import UUID

from anyon.cli import conversations, outputs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyon.sdk.clients import Client
    from anyon.sdk.models import ExecutionProcess, TaskAttempt

POLL_SECONDS = 0.3


async def show(client: "Client", attempt: "TaskAttempt", *, follow: bool, raw: bool) -> None:
    """Print all of it; with *follow* also what is still to come.

    An agent that speaks to programs is shown as a conversation, unless *raw* is asked for.
    """
    async for process in _processes(client, attempt, follow=follow):
        print(f"== {process.run_reason} {process.id}", file=sys.stderr, flush=True)  # noqa: T201 - the command's own words
        if not raw and _speaks_to_programs(process):
            await conversations.show(client, process.id, follow=follow)
            continue
        if follow:
            ended = await outputs.follow(client, process.id)
            print(f"== {ended.status} {_code(ended)}", file=sys.stderr, flush=True)  # noqa: T201 - as above
            continue
        screen = outputs.Screen()
        for channel in ("stdout", "stderr"):
            async for data in outputs.read_all(client, process.id, channel):
                screen.show(channel, data)
        screen.end()


async def collect(
    client: "Client", attempt: "TaskAttempt", *, follow: bool
) -> list[dict[str, Any]]:
    """Return all of it, for one JSON document."""
    shown = []
    async for process in _processes(client, attempt, follow=follow):
        output = await outputs.collect(client, process.id, follow=follow)
        shown.append({"process": await client.processes.get(process.id), **output})
    return shown


async def _processes(
    client: "Client", attempt: "TaskAttempt", *, follow: bool
) -> "AsyncIterator[ExecutionProcess]":
    """Yield each process once, oldest first; with *follow* until nothing more will be started."""
    seen: set[UUID] = set()
    while True:
        # Asked first: what stands in the list after "nothing runs" was said is all there will be.
        task = await client.tasks.get(attempt.task_id)
        for process in await client.attempts.processes(attempt.id):
            if process.id not in seen:
                seen.add(process.id)
                yield process
        if not follow or not task.has_in_progress_attempt:
            return
        await asyncio.sleep(POLL_SECONDS)


def _speaks_to_programs(process: "ExecutionProcess") -> bool:
    """Say whether what it writes is for programs: a coding agent's events, not a script's output."""
    profile = process.executor_action.get("typ", {}).get("executor_profile_id") or {}
    return process.run_reason == "codingagent" and profile.get("executor") != "SHELL"


def _code(process: "ExecutionProcess") -> str:
    return "" if process.exit_code is None else f"({process.exit_code})"
