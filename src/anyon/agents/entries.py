"""The wire's NormalizedEntry and its parts, as plain mappings."""

from collections.abc import Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]
Json = Mapping[str, Any]

TEXT_LIMIT = 256 * 1024
"""Characters that one text of an entry may hold; the raw log has the whole."""

CREATED: Json = {"status": "created"}
SUCCESS: Json = {"status": "success"}
FAILED: Json = {"status": "failed"}


def message(kind: str, content: str) -> Entry:
    """Return an entry of a *kind* without more fields, such as ``assistant_message``."""
    return _entry({"type": kind}, content)


def error(content: str, *, setup_required: bool = False) -> Entry:
    """Return an ``error_message``; *setup_required* makes the front end offer the set-up."""
    kind = "setup_required" if setup_required else "other"
    return _entry({"type": "error_message", "error_type": {"type": kind}}, content)


def tool_use(name: str, action: Json, content: str, status: Json = CREATED) -> Entry:
    """Return the entry of one use of the tool *name*."""
    entry_type = {"type": "tool_use", "tool_name": name, "action_type": action, "status": status}
    return _entry(entry_type, content)


def with_status(entry: Entry, status: Json, action: Json | None = None) -> Entry:
    """Return a ``tool_use`` entry with another status and, if given, another action."""
    kind = {**entry["entry_type"], "status": status}
    if action is not None:
        kind["action_type"] = action
    return {**entry, "entry_type": kind}


def file_read(path: str) -> Json:
    """Return the action of looking into a file."""
    return {"action": "file_read", "path": path}


def file_edit(path: str, changes: Sequence[Json]) -> Json:
    """Return the action of changing a file."""
    return {"action": "file_edit", "path": path, "changes": list(changes)}


def write(content: str) -> Json:
    """Return the change that gives a file its whole content."""
    return {"action": "write", "content": bounded(content)}


def edit(path: str, old: str, new: str) -> Json:
    """Return the change that puts *new* in the place of *old*, as a diff of one hunk.

    Where in the file that is nobody said, so its line numbers mean nothing.
    """
    diff = _diff(path, bounded(old).splitlines(), bounded(new).splitlines())
    return {"action": "edit", "unified_diff": diff, "has_line_numbers": False}


def command_run(command: str, *, output: str | None = None, code: int | bool | None = None) -> Json:
    """Return the action of running a command; *code* is an exit code or, if only that is known, success."""
    action: dict[str, Any] = {"action": "command_run", "command": command}
    if output is not None or code is not None:
        status = None
        if isinstance(code, bool):
            status = {"type": "success", "success": code}
        elif code is not None:
            status = {"type": "exit_code", "code": code}
        action["result"] = {"exit_status": status, "output": bounded(output or "")}
    return action


def search(query: str) -> Json:
    """Return the action of searching for something."""
    return {"action": "search", "query": query}


def web_fetch(url: str) -> Json:
    """Return the action of looking at the web."""
    return {"action": "web_fetch", "url": url}


def tool(name: str, arguments: Any, result: str | None = None) -> Json:
    """Return the action of any other tool."""
    value = {"type": {"type": "markdown"}, "value": bounded(result)} if result is not None else None
    return {"action": "tool", "tool_name": name, "arguments": arguments, "result": value}


def task_create(description: str) -> Json:
    """Return the action of handing work to a helper."""
    return {"action": "task_create", "description": description}


def plan_presentation(plan: str) -> Json:
    """Return the action of presenting a plan."""
    return {"action": "plan_presentation", "plan": plan}


def todo_management(todos: Sequence[Json], operation: str = "write") -> Json:
    """Return the action of keeping the list of things to do."""
    return {"action": "todo_management", "todos": list(todos), "operation": operation}


def todo(content: str, status: str, priority: str | None = None) -> Json:
    """Return one thing to do."""
    return {"content": content, "status": status, "priority": priority}


def other(description: str) -> Json:
    """Return an action that is of no other kind."""
    return {"action": "other", "description": description}


def bounded(text: str) -> str:
    """Return *text*, without its middle if it is too long."""
    if len(text) <= TEXT_LIMIT:
        return text
    half = TEXT_LIMIT // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def _entry(kind: Json, content: str) -> Entry:
    return {"timestamp": None, "entry_type": kind, "content": bounded(content), "metadata": None}


def _diff(path: str, old: Sequence[str], new: Sequence[str]) -> str:
    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    lines = [
        *(f" {line}" for line in old[:head]),
        *(f"-{line}" for line in old[head : len(old) - tail]),
        *(f"+{line}" for line in new[head : len(new) - tail]),
        *(f" {line}" for line in old[len(old) - tail :]),
    ]
    header = f"--- a/{path}\n+++ b/{path}\n@@ -1,{len(old)} +1,{len(new)} @@\n"
    return header + "".join(f"{line}\n" for line in lines)
