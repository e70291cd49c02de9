"""``CURSOR_AGENT``: Cursor's command line agent, whose events have much of Claude Code's form."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from anyon.agents import entries, tools
from anyon.agents.claude_events import ClaudeReader
from anyon.agents.programs import Options, ProgramAgent
from anyon.agents.readers import mapping, shown, text, whole


class CursorReader(ClaudeReader):
    """Reads one run of Cursor's agent: thoughts come in parts, tool calls as events of their own."""

    program: ClassVar[str] = "Cursor"
    kinds: ClassVar[Mapping[str, tools.ToolKind]] = {
        "readToolCall": "read",
        "lsToolCall": "read",
        "writeToolCall": "write",
        "editToolCall": "edit",
        "deleteToolCall": "edit",
        "shellToolCall": "run",
        "grepToolCall": "search",
        "globToolCall": "search",
        "semSearchToolCall": "search",
        "webSearchToolCall": "web",
        "updateTodosToolCall": "todos",
    }

    def event(self, event: Mapping[str, Any]) -> bool:
        """Take one event; say whether it was understood."""
        kind = event.get("type")
        if kind == "thinking":
            self.conversation.write("thinking", text(event, "text"))
            return True
        if kind == "tool_call":
            self.session = text(event, "session_id") or self.session
            return self._tool_call(event)
        return super().event(event)

    def _tool_call(self, event: Mapping[str, Any]) -> bool:
        for name, value in mapping(event.get("tool_call")).items():
            tool = mapping(value)
            if not name.endswith("ToolCall"):
                continue
            call = text(event, "call_id") or name
            if self.conversation.tool(call) is None:
                self._open(call, name, mapping(tool.get("args")))
            if event.get("subtype") == "completed":
                self._completed(call, mapping(tool.get("result")))
            return True
        return False

    def _completed(self, call: str, result: Mapping[str, Any]) -> None:
        entry = self.conversation.tool(call)
        if entry is None:
            return
        good = mapping(result.get("success"))
        told = good or next((mapping(value) for value in result.values()), {})
        code = whole(told.get("exitCode"))
        status = entries.SUCCESS if "success" in result and not code else entries.FAILED
        output = text(told, "stdout", "output", "content", "error") + text(told, "stderr")
        self.conversation.close_tool(
            call, tools.result(entry, output or shown(result), status, code)
        )


def _arguments(options: Options, session: str | None) -> Sequence[str]:
    arguments = ["-p", "--output-format", "stream-json"]
    if options.flag("force"):
        arguments += ["--force"]
    if model := options.text("model"):
        arguments += ["--model", model]
    if session:
        arguments += ["--resume", session]
    return arguments


_MODELS = {
    "SONNET_4_5": "sonnet-4.5",
    "SONNET_4_5_THINKING": "sonnet-4.5-thinking",
    "OPUS_4_1": "opus-4.1",
    "GPT_5": "gpt-5",
    "GROK": "grok",
}

CURSOR_AGENT = ProgramAgent(
    name="CURSOR_AGENT",
    program="cursor-agent",
    secret_names=("CURSOR_API_KEY",),
    capabilities=("SETUP_HELPER",),
    variants={
        "DEFAULT": {"force": True, "model": "auto"},
        **{name: {"force": True, "model": model} for name, model in _MODELS.items()},
    },
    kinds={"force": "flag", "model": "text"},
    command=lambda _options: ("cursor-agent",),
    arguments=_arguments,
    new_reader=CursorReader,
)
"""It comes by an installer of its own, not by npm."""
