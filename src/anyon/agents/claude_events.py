"""Reading Claude Code's ``stream-json``."""

from collections.abc import Mapping
from typing import Any, ClassVar

from anyon.agents import entries, tools
from anyon.agents.readers import EventReader, mapping, objects, relative, shown, text

_SILENT = frozenset({"stream_event", "keep_alive", "tool_progress", "tool_use_summary"})
"""Events that only say again, or in parts, what others say whole."""
_SILENT_SYSTEM = frozenset(
    {"status", "hook_started", "hook_progress", "hook_response", "files_persisted"}
    | {"task_started", "task_progress", "task_notification", "task_updated", "thinking_tokens"}
)
_REFUSED = ("The user doesn't want to", "Claude requested permissions", "Permission to use")


class ClaudeReader(EventReader):
    """Reads one run of Claude Code, or of an agent that took over its form of events."""

    kinds: ClassVar[Mapping[str, tools.ToolKind]] = {
        "Read": "read",
        "NotebookRead": "read",
        "LS": "read",
        "Write": "write",
        "Edit": "edit",
        "MultiEdit": "edits",
        "NotebookEdit": "edit",
        "Bash": "run",
        "Grep": "search",
        "Glob": "search",
        "WebFetch": "web",
        "WebSearch": "web",
        "Task": "task",
        "Agent": "task",
        "ExitPlanMode": "plan",
        "exit_plan_mode": "plan",
        "TodoWrite": "todos",
    }
    program: ClassVar[str] = "Claude Code"

    def __init__(self) -> None:
        super().__init__()
        self._directory = ""
        self._said = ""
        self._denied: set[str] = set()

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
            self._add("system_message", f"{self.program} started with {model}.")
        elif subtype == "compact_boundary":
            self._add("system_message", "The conversation was made shorter.")
        elif subtype == "permission_denied":
            self._denied.add(text(event, "tool_use_id"))  # its words come with the tool's result
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
                self._open(call, text(block, "name"), mapping(block.get("input")))
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

    def _open(self, call: str, name: str, given: Mapping[str, Any]) -> None:
        path = text(given, "file_path", "notebook_path", "absolute_path", "path")
        shown_path = _relative(path, self._directory)
        self.conversation.open_tool(call, tools.call(self.kinds, name, given, shown_path))

    def _tool_result(self, block: Mapping[str, Any]) -> None:
        output = _words(block.get("content"))
        call = text(block, "tool_use_id")
        entry = self.conversation.tool(call)
        if entry is None:
            self._add("system_message", output)
            return
        failed = block.get("is_error") is True
        status = entries.FAILED if failed else entries.SUCCESS
        if failed and (call in self._denied or output.startswith(_REFUSED)):
            status = {"status": "denied", "reason": output}
        self.conversation.close_tool(call, tools.result(entry, output, status))

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


def _relative(path: str, directory: str) -> str:
    return relative(path.removeprefix(f"{directory}/") if directory else path)


def _words(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(
        text(block, "text") or f"[{text(block, 'type') or 'part'}]" for block in objects(content)
    )
