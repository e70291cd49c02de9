"""``CODEX``: OpenAI's Codex, its ``exec`` with JSON events."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from anyon.agents import entries
from anyon.agents.entries import Entry, Json
from anyon.agents.programs import Options, ProgramAgent
from anyon.agents.readers import EventReader, mapping, objects, relative, shown, text, whole

_SHELL = re.compile(r"(?:/\S*/)?(?:bash|sh|zsh) -l?c (.+)\Z", re.DOTALL)
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
        if kind == "file_change":
            return self._file_change(item, over=over)
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

    def _file_change(self, item: Mapping[str, Any], *, over: bool) -> bool:
        # The events name the files only; what became of them is in the attempt's diff.
        changes = objects(item.get("changes"))
        for change in changes:
            path = relative(text(change, "path"))
            part = entries.edit(path, "", "")
            if change.get("kind") == "delete":
                part = {"action": "delete"}
            action = entries.file_edit(path, [part])
            entry = entries.tool_use("edit", action, path, _status(item, over=over))
            call = f"{text(item, 'id')} {path}"
            if over:
                self.conversation.close_tool(call, entry)
            else:
                self.conversation.open_tool(call, entry)
        return bool(changes)

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
            command = _command(text(item, "command"))
            output = text(item, "aggregated_output") if over else None
            action = entries.command_run(command, output=output, code=whole(item.get("exit_code")))
            return entries.tool_use("bash", action, command, status)
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


def _command(command: str) -> str:
    """Return what was asked of the shell, without the shell around it."""
    match = _SHELL.match(command)
    if match is None:
        return command
    try:
        words = shlex.split(match[1])
    except ValueError:
        return command
    return words[0] if len(words) == 1 else command


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


_REPLACED = {"unless-trusted": "on-request"}
"""Words of the wire's settings that Codex no longer takes, and the strictest that it does."""

# Codex reads its address from its configuration only, and a key for exec under its own name only.
_RUN = r"""
if [ -n "$OPENAI_API_KEY" ] && [ -z "$CODEX_API_KEY" ]; then export CODEX_API_KEY="$OPENAI_API_KEY"; fi
if [ -n "$OPENAI_BASE_URL" ]; then set -- "$@" -c "openai_base_url=\"$OPENAI_BASE_URL\""; fi
exec "$@"
"""


def _arguments(options: Options, session: str | None) -> Sequence[str]:
    arguments = ["exec"]
    sandbox = options.text("sandbox")
    if sandbox == "danger-full-access":
        arguments += ["--dangerously-bypass-approvals-and-sandbox"]
    elif sandbox:
        arguments += ["--sandbox", "workspace-write" if sandbox == "auto" else sandbox]
    for setting, name in _CONFIGURED:
        if value := options.text(setting):
            arguments += ["-c", f"{name}={json.dumps(_REPLACED.get(value, value))}"]
    if options.flag("oss"):
        arguments += ["--oss"]
    for setting in ("model", "profile"):
        if value := options.text(setting):
            arguments += [f"--{setting}", value]
    arguments += ["--json", "--skip-git-repo-check"]
    return [*arguments, "fork", session, "-"] if session else [*arguments, "-"]


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
    command=lambda _options: ("sh", "-c", _RUN, "codex", "codex"),
    arguments=_arguments,
    new_reader=CodexReader,
)
"""The container is the sandbox; Codex's own needs more of the kernel than a container has."""
