"""Reading Claude Code's ``stream-json``."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from anyon.agents import entries
from anyon.agents.entries import Entry, Json
from anyon.agents.readers import EventReader, mapping, objects, shown, text

_SILENT = frozenset({"stream_event", "keep_alive", "tool_progress", "tool_use_summary"})
"""Events that only say again, or in parts, what others say whole."""
_SILENT_SYSTEM = frozenset(
    {"status", "hook_started", "hook_progress", "hook_response", "files_persisted"}
    | {"task_started", "task_progress", "task_notification", "task_updated", "thinking_tokens"}
)
_EXIT_CODE = re.compile(r"\s*(?:Error: )?Exit code (\d{1,3})\b")
_REFUSED = ("The user doesn't want to", "Claude requested permissions", "Permission to use")


class ClaudeReader(EventReader):
    """Reads one run of Claude Code."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = ""
        self._said = ""

    def event(self, event: Mapping[str, Any]) -> bool:
        """Take one event; say whether it was understood."""
        if session := text(event, "session_id"):
            self.session = session
        kind = event.get("type")
        if kind == "system":
            return self._system(event)
        if kind == "assistant":
            return self._assistant(event)
        if kind == "user":
            return self._user(event)
        if kind == "result":
            return self._result(event)
        if kind == "rate_limit_event":
            return text(mapping(event.get("rate_limit_info")), "status").startswith("allowed")
        return kind in _SILENT

    def _system(self, event: Mapping[str, Any]) -> bool:
        subtype = event.get("subtype")
        if subtype == "init":
            self._directory = text(event, "cwd")
            model = text(event, "model") or "an unknown model"
            self._add("system_message", f"Claude Code started with {model}.")
        elif subtype == "compact_boundary":
            self._add("system_message", "The conversation was made shorter.")
        elif subtype == "api_retry":
            reason = text(event, "error") or "no reason given"
            self._add("system_message", f"The model did not answer ({reason}); trying again.")
        else:
            return subtype in _SILENT_SYSTEM
        return True

    def _assistant(self, event: Mapping[str, Any]) -> bool:
        blocks = objects(mapping(event.get("message")).get("content"))
        failure = text(event, "error")
        for block in blocks:
            kind = block.get("type")
            if kind == "text" and failure:
                wants_login = failure in {"authentication_failed", "oauth_org_not_allowed"}
                self.conversation.fail(text(block, "text"), setup_required=wants_login)
            elif kind == "text":
                self._said = text(block, "text")
                self._add("assistant_message", self._said)
            elif kind == "thinking":
                self._add("thinking", text(block, "thinking"))
            elif kind in {"tool_use", "server_tool_use"}:
                call = text(block, "id")
                tool = claude_tool(
                    text(block, "name"), mapping(block.get("input")), self._directory
                )
                self.conversation.open_tool(call, tool)
            elif kind != "redacted_thinking":
                self._add("system_message", shown(block))
        return bool(blocks)

    def _user(self, event: Mapping[str, Any]) -> bool:
        content = mapping(event.get("message")).get("content")
        if isinstance(content, str):
            self._add("user_message", content)
            return True
        for block in objects(content):
            if block.get("type") == "tool_result":
                self._tool_result(block)
            elif words := text(block, "text"):
                self._add("user_message", words)
            else:
                self._add("system_message", shown(block))
        return isinstance(content, list)

    def _tool_result(self, block: Mapping[str, Any]) -> None:
        output = _words(block.get("content"))
        call = text(block, "tool_use_id")
        entry = self.conversation.tool(call)
        if entry is None:
            self._add("system_message", output)
            return
        failed = block.get("is_error") is True
        status = entries.FAILED if failed else entries.SUCCESS
        if failed and output.startswith(_REFUSED):
            status = {"status": "denied", "reason": output}
        self.conversation.close_tool(call, finished(entry, output, status))

    def _result(self, event: Mapping[str, Any]) -> bool:
        words = text(event, "result")
        if event.get("is_error") is True:
            reasons = event.get("errors")
            listed = (
                "\n".join(shown(reason) for reason in reasons) if isinstance(reasons, list) else ""
            )
            if not self.conversation.failure_told:
                self.conversation.fail(words or listed or f"It failed: {text(event, 'subtype')}.")
        elif words and words != self._said:
            self._add("assistant_message", words)
        return True

    def _add(self, kind: str, content: str) -> None:
        if content:
            self.conversation.add(entries.message(kind, content))


def finished(entry: Entry, output: str, status: Json) -> Entry:
    """Return a tool's entry with its result; actions without a place for one keep only the status.

    What a failed one said is then shown in its content, so that it is not lost.
    """
    action = entry["entry_type"]["action_type"]
    if action["action"] == "command_run":
        code = _EXIT_CODE.match(output)
        result = int(code[1]) if code else status == entries.SUCCESS
        action = entries.command_run(action["command"], output=output, code=result)
    elif action["action"] == "tool":
        action = entries.tool(action["tool_name"], action["arguments"], output)
    elif status == entries.FAILED and output:
        entry = {**entry, "content": entries.bounded(f"{entry['content']}\n{output}")}
    return entries.with_status(entry, status, action)


def claude_tool(name: str, given: Mapping[str, Any], directory: str) -> Entry:
    """Return the entry of a call of one of Claude Code's tools, with paths below *directory* relative."""
    path = _relative(text(given, "file_path", "notebook_path", "path"), directory)
    action = _file_action(name, given, path) or _other_action(name, given)
    content = next(
        (
            action[field]
            for field in ("path", "command", "query", "url", "description", "plan")
            if action.get(field)
        ),
        name,
    )
    return entries.tool_use(name, action, content)


def _file_action(name: str, given: Mapping[str, Any], path: str) -> Json | None:
    match name:
        case "Read" | "NotebookRead" | "LS":
            return entries.file_read(path)
        case "Write":
            return entries.file_edit(path, [entries.write(text(given, "content"))])
        case "Edit":
            return entries.file_edit(path, [_edit(path, given)])
        case "MultiEdit":
            return entries.file_edit(
                path, [_edit(path, one) for one in objects(given.get("edits"))]
            )
        case "NotebookEdit":
            return entries.file_edit(path, [entries.edit(path, "", text(given, "new_source"))])
    return None


def _other_action(name: str, given: Mapping[str, Any]) -> Json:  # noqa: PLR0911 - one return for each tool
    match name:
        case "Bash":
            return entries.command_run(text(given, "command"))
        case "Grep" | "Glob":
            return entries.search(text(given, "pattern"))
        case "WebFetch" | "WebSearch":
            return entries.web_fetch(text(given, "url", "query"))
        case "Task" | "Agent":
            return entries.task_create(text(given, "description", "prompt"))
        case "ExitPlanMode" | "exit_plan_mode":
            return entries.plan_presentation(text(given, "plan"))
        case "TodoWrite":
            return entries.todo_management(_todos(given))
    if name.startswith("mcp__"):
        return entries.tool(name.replace("__", ":"), given)
    return entries.tool(name, given)


def _todos(given: Mapping[str, Any]) -> Sequence[Json]:
    return [
        entries.todo(
            text(one, "content"), text(one, "status") or "pending", text(one, "priority") or None
        )
        for one in objects(given.get("todos"))
    ]


def _edit(path: str, given: Mapping[str, Any]) -> Json:
    return entries.edit(path, text(given, "old_string"), text(given, "new_string"))


def _relative(path: str, directory: str) -> str:
    return path.removeprefix(f"{directory}/") if directory else path


def _words(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(
        text(block, "text") or f"[{text(block, 'type') or 'part'}]" for block in objects(content)
    )
