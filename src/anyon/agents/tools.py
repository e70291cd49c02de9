"""Calls of agents' tools as entries: the agents name alike things differently.

Each agent says what its tools are called; what becomes of a call and of its result is here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from anyon.agents import entries
from anyon.agents.entries import Entry, Json
from anyon.agents.readers import objects, text

ToolKind = Literal[
    "read", "write", "edit", "edits", "run", "search", "web", "task", "plan", "todos", "other"
]

_PATH = ("file_path", "filePath", "notebook_path", "absolute_path", "path", "dir_path")
_CONTENT = ("content", "contents", "fileText", "file_text")
_OLD = ("old_string", "oldString", "old_str")
_NEW = ("new_string", "newString", "new_str", "new_source")
_COMMAND = ("command", "cmd")
_QUERY = ("pattern", "query", "glob", "path")
_URL = ("url", "query", "prompt")
_TASK = ("description", "prompt")
_SHOWN = ("path", "command", "query", "url", "description", "plan")
_EXIT_CODE = re.compile(
    r"(?:\A\s*(?:Error: )?|^)Exit code:? (-?\d{1,3})\b", re.IGNORECASE | re.MULTILINE
)


def call(kinds: Mapping[str, ToolKind], name: str, given: Json, path: str | None = None) -> Entry:
    """Return the entry of a call of tool *name* with the arguments *given*.

    *path* is the file as it is to be shown, if the caller knows better than the arguments.
    """
    action = _action(kinds.get(name, "other"), name, given, path or text(given, *_PATH))
    return entries.tool_use(name, action, text(action, *_SHOWN) or name)


def result(entry: Entry, output: str, status: Json, code: int | None = None) -> Entry:
    """Return a tool's entry with its result; actions without a place for one keep only the status.

    What a failed one said is then shown in its content, so that it is not lost.
    """
    action = entry["entry_type"]["action_type"]
    if action["action"] == "command_run":
        if code is None and status == entries.FAILED:
            told = _EXIT_CODE.search(output)
            code = int(told[1]) if told else None
        ended = code if code is not None else status == entries.SUCCESS
        action = entries.command_run(action["command"], output=output, code=ended)
    elif action["action"] == "tool":
        action = entries.tool(action["tool_name"], action["arguments"], output)
    elif status == entries.FAILED and output:
        entry = {**entry, "content": entries.bounded(f"{entry['content']}\n{output}")}
    return entries.with_status(entry, status, action)


def _action(kind: ToolKind, name: str, given: Json, path: str) -> Json:  # noqa: PLR0911 - one return for each kind
    match kind:
        case "read":
            return entries.file_read(path)
        case "write":
            return entries.file_edit(path, [entries.write(text(given, *_CONTENT))])
        case "edit":
            return entries.file_edit(path, [_edit(path, given)])
        case "edits":
            parts = [_edit(path, one) for one in objects(given.get("edits"))]
            return entries.file_edit(path, parts)
        case "run":
            return entries.command_run(text(given, *_COMMAND))
        case "search":
            return entries.search(text(given, *_QUERY))
        case "web":
            return entries.web_fetch(text(given, *_URL))
        case "task":
            return entries.task_create(text(given, *_TASK))
        case "plan":
            return entries.plan_presentation(text(given, "plan"))
        case "todos":
            return entries.todo_management(_todos(given))
    shown = name.replace("__", ":") if name.startswith("mcp__") else name
    return entries.tool(shown, given)


def _edit(path: str, given: Json) -> Json:
    return entries.edit(path, text(given, *_OLD), text(given, *_NEW))


def _todos(given: Json) -> Sequence[Json]:
    listed: Any = given.get("todos") or given.get("plan")
    return [
        entries.todo(
            text(one, "content", "description", "step"),
            text(one, "status") or "pending",
            text(one, "priority") or None,
        )
        for one in objects(listed)
    ]
