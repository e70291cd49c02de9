"""``CODEX``: OpenAI's Codex, its ``exec`` with JSON events."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from anyon.agents import entries
from anyon.agents.entries import Entry, Json
from anyon.agents.programs import Options, ProgramAgent
from anyon.agents.readers import EventReader, mapping, objects, shown, text, whole

_SILENT = frozenset({"turn.started", "turn.completed"})


class CodexReader(EventReader):
    """Reads one run of ``codex exec --json``."""

    def event(self, event: Mapping[str, Any]) -> bool:
        """Take one event; say whether it was understood."""
        kind = event.get("type")
        if kind == "thread.started":
            self.session = text(event, "thread_id") or self.session
            return True
        if kind in {"item.started", "item.updated", "item.completed"}:
            return self._item(mapping(event.get("item")), over=kind == "item.completed")
        if kind == "turn.failed":
            self._fail(text(mapping(event.get("error")), "message"))
            return True
        if kind == "error":
            words = text(event, "message")
            if words.startswith("Reconnecting"):
                self.conversation.add(entries.message("system_message", words))
            else:
                self._fail(words)
            return True
        return kind in _SILENT

    def _item(self, item: Mapping[str, Any], *, over: bool) -> bool:
        messages = {"agent_message": "assistant_message", "reasoning": "thinking"}
        kind = text(item, "type")
        if kind in messages:
            entry: Entry | None = entries.message(messages[kind], text(item, "text"))
        elif kind == "error":
            entry = entries.error(text(item, "message"))
        else:
            entry = _tool(kind, item, over=over)
        if entry is None:
            return False
        call = text(item, "id")
        if over:
            self.conversation.close_tool(call, entry)
        elif entry["entry_type"]["type"] == "tool_use":
            self.conversation.open_tool(call, entry)
        return True

    def _fail(self, reason: str) -> None:
        reason = reason or "Codex failed and gave no reason."
        wants_login = "401" in reason or "Not logged in" in reason
        if reason != self._last_failure:
            self.conversation.fail(reason, setup_required=wants_login)
        self._last_failure = reason

    _last_failure = ""


def _tool(kind: str, item: Mapping[str, Any], *, over: bool) -> Entry | None:
    status = _status(item, over=over)
    match kind:
        case "command_execution":
            command = text(item, "command")
            output = text(item, "aggregated_output") if over else None
            action = entries.command_run(command, output=output, code=whole(item.get("exit_code")))
            return entries.tool_use("bash", action, command, status)
        case "file_change":
            return _file_change(item, status)
        case "mcp_tool_call":
            name = f"mcp:{text(item, 'server')}:{text(item, 'tool')}"
            outcome = item.get("error") or item.get("result")
            result = shown(outcome) if over and outcome is not None else None
            action = entries.tool(name, item.get("arguments"), result)
            return entries.tool_use(name, action, name, status)
        case "web_search":
            query = text(item, "query")
            return entries.tool_use("web_search", entries.web_fetch(query), query, status)
        case "todo_list":
            todos = [_todo(one) for one in objects(item.get("items"))]
            action = entries.todo_management(todos, "write")
            return entries.tool_use("plan", action, "The plan was brought up to date.", status)
    return None


def _file_change(item: Mapping[str, Any], status: Json) -> Entry:
    changes = objects(item.get("changes"))
    path = text(changes[0], "path") if changes else ""
    parts = [_change(change) for change in changes]
    names = "\n".join(text(change, "path") for change in changes)
    return entries.tool_use("edit", entries.file_edit(path, parts), names, status)


def _change(change: Mapping[str, Any]) -> Json:
    # The events name the files only; what became of them is in the attempt's diff.
    if change.get("kind") == "delete":
        return {"action": "delete"}
    return entries.edit(text(change, "path"), "", "")


def _todo(item: Mapping[str, Any]) -> Json:
    return entries.todo(
        text(item, "text"), "completed" if item.get("completed") is True else "pending"
    )


def _status(item: Mapping[str, Any], *, over: bool) -> Json:
    if not over:
        return entries.CREATED
    if item.get("status") in {"failed", "declined"} or item.get("exit_code"):
        return entries.FAILED
    return entries.SUCCESS


_CONFIGURED = (
    ("ask_for_approval", "approval_policy"),
    ("model_reasoning_effort", "model_reasoning_effort"),
    ("model_reasoning_summary", "model_reasoning_summary"),
    ("model_reasoning_summary_format", "model_reasoning_summary_format"),
    ("base_instructions", "instructions"),
)
"""Settings that are entries of its configuration, and the names they have there."""


def _arguments(options: Options, session: str | None) -> Sequence[str]:
    arguments = ["exec"]
    sandbox = options.text("sandbox")
    if sandbox == "danger-full-access":
        arguments += ["--dangerously-bypass-approvals-and-sandbox"]
    elif sandbox:
        arguments += ["--sandbox", "workspace-write" if sandbox == "auto" else sandbox]
    for setting, name in _CONFIGURED:
        if value := options.text(setting):
            word = "untrusted" if value == "unless-trusted" else value
            arguments += ["-c", f"{name}={json.dumps(word)}"]
    if options.flag("oss"):
        arguments += ["--oss"]
    for setting in ("model", "profile"):
        if value := options.text(setting):
            arguments += [f"--{setting}", value]
    arguments += ["--json", "--skip-git-repo-check"]
    return [*arguments, "resume", session, "-"] if session else [*arguments, "-"]


CODEX = ProgramAgent(
    name="CODEX",
    program="codex",
    npm_package="@openai/codex",
    secret_names=("CODEX_API_KEY", "OPENAI_API_KEY"),
    passed_env=("OPENAI_BASE_URL",),
    capabilities=("SESSION_FORK",),
    variants={
        "DEFAULT": {"sandbox": "danger-full-access"},
        "HIGH": {"sandbox": "danger-full-access", "model_reasoning_effort": "high"},
        "APPROVALS": {"sandbox": "workspace-write", "ask_for_approval": "unless-trusted"},
    },
    kinds={
        "sandbox": frozenset({"auto", "read-only", "workspace-write", "danger-full-access"}),
        "ask_for_approval": frozenset({"unless-trusted", "on-failure", "on-request", "never"}),
        "oss": "flag",
        "include_plan_tool": "flag",
        "include_apply_patch_tool": "flag",
        "model": "text",
        "profile": "text",
        "base_instructions": "text",
        "model_reasoning_effort": frozenset({"low", "medium", "high"}),
        "model_reasoning_summary": frozenset({"auto", "concise", "detailed", "none"}),
        "model_reasoning_summary_format": frozenset({"none", "experimental"}),
    },
    command=lambda _options: ("codex",),
    arguments=_arguments,
    new_reader=CodexReader,
)
"""The container is the sandbox; Codex's own needs more of the kernel than a container has."""
