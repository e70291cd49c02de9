"""Showing an agent's conversation as it grows: each entry once, when it is complete."""

import asyncio
import sys
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from uuid import UUID

from anyon.cli.printing import harmless
from anyon.sdk.connections import wait_before_retry
from anyon.sdk.errors import UnreachableError

if TYPE_CHECKING:
    from anyon.sdk.clients import Client

PATIENCE_SECONDS = 60.0
QUIET_SECONDS = 2.0

_MARKS = {
    "user_message": "> ",
    "assistant_message": "",
    "thinking": "~ ",
    "tool_use": "* ",
    "error_message": "! ",
    "user_feedback": "> ",
}


def line_of(entry: Mapping[str, Any]) -> str:
    """Return an entry's lines for people, harmless for a terminal."""
    kind = entry["entry_type"]
    words = str(entry["content"]).strip()
    if kind["type"] == "tool_use":
        status = kind["status"]["status"]
        words = f"{kind['tool_name']}: {words}" + ("" if status == "success" else f" [{status}]")
    mark = _MARKS.get(kind["type"], "- ")
    return harmless("\n".join(mark + line for line in words.splitlines() or [""]))


class Conversation:
    """What has been heard of one conversation, and how much of it has been shown."""

    def __init__(self) -> None:
        self._entries: list[Mapping[str, Any]] = []
        self._shown = 0

    def begin_again(self) -> None:
        """Take it from its beginning; what was shown is not shown again."""
        self._entries = []

    def take(self, frame: Mapping[str, Any]) -> list[str]:
        """Apply a frame and return the lines of what is now complete: all but the last entry."""
        for op in frame.get("JsonPatch", ()):
            index = int(str(op["path"]).rsplit("/", 1)[1])
            self._entries[index : index + 1] = [op["value"]["content"]]
        return self._lines(len(self._entries) - 1)

    def rest(self) -> list[str]:
        """Return the lines of what was not shown."""
        return self._lines(len(self._entries))

    def _lines(self, end: int) -> list[str]:
        lines = [line_of(entry) for entry in self._entries[self._shown : end]]
        self._shown = max(self._shown, end)
        return lines


async def show(client: "Client", process: UUID, *, follow: bool) -> None:
    """Print a conversation: to its end, or without *follow* as far as it has come."""
    conversation, failures, lost_at = Conversation(), 0, None
    while True:
        conversation.begin_again()
        try:
            if await _hear(client, process, conversation, follow=follow):
                _print(conversation.rest())
                return
            lost_at = None  # it ended without saying so: the server goes, and will be back
        except UnreachableError:
            lost_at = lost_at or time.monotonic()
            if failures and time.monotonic() - lost_at > PATIENCE_SECONDS:
                raise
        await wait_before_retry(failures)
        failures += 1


async def _hear(
    client: "Client", process: UUID, conversation: Conversation, *, follow: bool
) -> bool:
    """Print what comes over one connection; say whether that was all."""
    async with aclosing(client.processes.conversation(process)) as frames:
        while True:
            try:
                async with asyncio.timeout(None if follow else QUIET_SECONDS):
                    frame = await anext(frames)
            except StopAsyncIteration:
                return False
            except TimeoutError:
                return True
            if frame.get("finished"):
                return True
            _print(conversation.take(frame))


def _print(lines: list[str]) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()
