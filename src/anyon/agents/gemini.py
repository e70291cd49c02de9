"""``GEMINI``: Google's Gemini CLI, with a stream of JSON events."""

from collections.abc import Mapping, Sequence
from typing import Any

from anyon.agents import entries, tools
from anyon.agents.programs import Options, ProgramAgent
from anyon.agents.readers import EventReader, mapping, relative, shown, text

_KINDS: Mapping[str, tools.ToolKind] = {
    "read_file": "read",
    "read_many_files": "read",
    "list_directory": "read",
    "write_file": "write",
    "replace": "edit",
    "run_shell_command": "run",
    "glob": "search",
    "grep_search": "search",
    "search_file_content": "search",
    "web_fetch": "web",
    "google_web_search": "web",
    "write_todos": "todos",
    "exit_plan_mode": "plan",
}


class GeminiReader(EventReader):
    """Reads one run of Gemini CLI."""

    def event(self, event: Mapping[str, Any]) -> bool:
        """Take one event; say whether it was understood."""
        match event.get("type"):
            case "init":
                self.session = text(event, "session_id") or self.session
                model = text(event, "model") or "an unknown model"
                self._say("system_message", f"Gemini CLI started with {model}.")
            case "message":
                self._message(event)
            case "tool_use":
                given = mapping(event.get("parameters"))
                path = relative(text(given, "file_path", "absolute_path", "path", "dir_path"))
                entry = tools.call(_KINDS, text(event, "tool_name"), given, path)
                self.conversation.open_tool(text(event, "tool_id"), entry)
            case "tool_result":
                self._tool_result(event)
            case "error" if text(event, "severity") == "warning":
                self._say("system_message", text(event, "message"))
            case "error":
                self.conversation.fail(text(event, "message") or "It failed and gave no reason.")
            case "result":
                if event.get("status") == "error" and not self.conversation.failure_told:
                    reason = text(mapping(event.get("error")), "message")
                    self.conversation.fail(reason or "It failed and gave no reason.")
            case _:
                return False
        return True

    def _message(self, event: Mapping[str, Any]) -> None:
        words = text(event, "content")
        if event.get("role") == "user":
            # The prompt: whoever reads the conversation has it from the request.
            self._say("user_message", words)
        elif event.get("delta") is True:
            self.conversation.write("assistant_message", words)
        else:
            self._say("assistant_message", words)

    def _tool_result(self, event: Mapping[str, Any]) -> None:
        call = text(event, "tool_id")
        output = event.get("output")
        failed = event.get("status") == "error"
        words = shown(output) if output is not None else ""
        if failed:
            words = words or text(mapping(event.get("error")), "message")
        entry = self.conversation.tool(call)
        if entry is None:
            self._say("system_message", words)
            return
        status = entries.FAILED if failed else entries.SUCCESS
        self.conversation.close_tool(call, tools.result(entry, words, status))

    def _say(self, kind: str, words: str) -> None:
        if words:
            self.conversation.add(entries.message(kind, words))


def _arguments(options: Options, session: str | None) -> Sequence[str]:
    # The worktree was made by Anyon: there is nobody to ask whether it is to be trusted.
    arguments = ["--output-format", "stream-json", "--skip-trust"]
    if options.flag("yolo"):
        arguments += ["--yolo"]
    if options.text("model") == "flash":
        arguments += ["--model", "flash"]
    if session:
        arguments += ["--resume", session]
    return arguments


GEMINI = ProgramAgent(
    name="GEMINI",
    program="gemini",
    npm_package="@google/gemini-cli",
    secret_names=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    passed_env=("GOOGLE_GEMINI_BASE_URL", "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_CLOUD_PROJECT"),
    capabilities=("SESSION_FORK",),
    variants={
        "DEFAULT": {"model": "default", "yolo": True},
        "FLASH": {"model": "flash", "yolo": True},
    },
    kinds={"model": frozenset({"default", "flash"}), "yolo": "flag"},
    command=lambda _options: ("gemini",),
    arguments=_arguments,
    new_reader=GeminiReader,
)
"""A follow-up goes on in the same session.

With a base URL of one's own it wants ``security.auth.selectedType`` in HOME's ``.gemini/settings.json``.
"""
