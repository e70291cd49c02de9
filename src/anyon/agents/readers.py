"""What the readers of all agents share: a run's output becomes a conversation.

A reader of events gets one JSON object a line. Whatever is not one of them is shown as it
is, so that nothing an agent prints is lost.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from anyon.agents import entries
from anyon.agents.agent import Patch
from anyon.agents.conversations import Conversation
from anyon.agents.lines import CharacterDecoder, Line, LineSplitter
from anyon.domain.layout import WORKTREES

_WORKTREE = re.compile(rf"\A{re.escape(str(WORKTREES))}/[^/]+/(?=.)", re.DOTALL)


class TextReader:
    """Reads an agent that prints plain text."""

    def __init__(self) -> None:
        self._conversation = Conversation()
        self._out = CharacterDecoder()
        self._err = CharacterDecoder()

    @property
    def session_id(self) -> str | None:
        """Plain text tells no session."""
        return None

    def feed(self, data: bytes, *, stderr: bool = False) -> Sequence[Patch]:
        """Add *data* to the running text of its channel."""
        if stderr:
            self._conversation.write("error_message", self._err.feed(data))
        else:
            self._conversation.write("assistant_message", self._out.feed(data))
        return self._conversation.take()

    def finish(self, exit_code: int | None) -> Sequence[Patch]:
        """Flush both channels and tell a failure."""
        self._conversation.write("assistant_message", self._out.finish())
        self._conversation.write("error_message", self._err.finish())
        _tell_failure(self._conversation, exit_code)
        return self._conversation.take()


class EventReader:
    """Reads an agent that prints one JSON object a line; a subclass knows what they mean."""

    def __init__(self) -> None:
        self.conversation = Conversation()
        self.session: str | None = None
        self._lines = LineSplitter()
        self._err = CharacterDecoder()

    @property
    def session_id(self) -> str | None:
        """The agent's own session, once its output has told it."""
        return self.session

    def feed(self, data: bytes, *, stderr: bool = False) -> Sequence[Patch]:
        """Take the next bytes of a channel and return the changes."""
        if stderr:
            self.conversation.write("error_message", self._err.feed(data))
        else:
            for line in self._lines.feed(data):
                self._read(line)
        return self.conversation.take()

    def finish(self, exit_code: int | None) -> Sequence[Patch]:
        """Flush what is held, close open tool calls, tell a failure."""
        last = self._lines.finish()
        if last is not None:
            self._read(last)
        self.conversation.write("error_message", self._err.finish())
        self.conversation.close_all_tools()
        _tell_failure(self.conversation, exit_code)
        return self.conversation.take()

    def event(self, event: Mapping[str, Any]) -> bool:
        """Take one event; say whether it was understood. One that was not is shown as it is."""
        raise NotImplementedError

    def _read(self, line: Line) -> None:
        event = None if line.left_out_bytes else parse(line.text)
        if event is not None and self.event(event):
            return
        if line.left_out_bytes:
            note = f"… {line.left_out_bytes} more bytes of this line are in the raw log"
            self.conversation.write("system_message", f"{line.text}\n{note}\n")
        elif line.text.strip() or self.conversation.is_writing("system_message"):
            self.conversation.write("system_message", f"{line.text}\n")


def parse(text: str) -> Mapping[str, Any] | None:
    """Return the JSON object that *text* is, or None if it is none that can be passed on as JSON."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        # Half a surrogate pair can be escaped in JSON but not be written as UTF-8.
        if "\\ud" in text.lower():
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def mapping(value: Any) -> Mapping[str, Any]:
    """Return *value* if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> Sequence[Mapping[str, Any]]:
    """Return the JSON objects in *value*, none if it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text(source: Mapping[str, Any], *names: str) -> str:
    """Return the first of the *names* that *source* has as a text that is not empty, else ""."""
    for name in names:
        value = source.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def relative(path: str) -> str:
    """Return a path below an attempt's worktree relative to it, any other as it is."""
    return _WORKTREE.sub("", path, count=1)


def whole(value: Any) -> int | None:
    """Return *value* if it is a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def shown(value: Any) -> str:
    """Return a JSON value for people: a text as it is, else indented JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(number)
    return value


def _tell_failure(conversation: Conversation, exit_code: int | None) -> None:
    if exit_code is None:
        conversation.add(entries.error("It ended without an exit code: it was stopped or lost."))
    elif exit_code != 0 and not conversation.failure_told:
        conversation.add(entries.error(f"It ended with exit code {exit_code}."))
