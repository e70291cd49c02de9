"""``OPENCODE``: opencode's ``run`` with JSON events."""

from collections.abc import Mapping, Sequence
from typing import Any

from anyon.agents import entries, tools
from anyon.agents.programs import Options, ProgramAgent
from anyon.agents.readers import EventReader, mapping, relative, shown, text, whole

_KINDS: Mapping[str, tools.ToolKind] = {
    "read": "read",
    "list": "read",
    "write": "write",
    "edit": "edit",
    "multiedit": "edits",
    "bash": "run",
    "glob": "search",
    "grep": "search",
    "codesearch": "search",
    "webfetch": "web",
    "websearch": "web",
    "task": "task",
    "todowrite": "todos",
}


class OpencodeReader(EventReader):
    """Reads one run of opencode, which tells of a tool's call once it is over."""

    def event(self, event: Mapping[str, Any]) -> bool:
        """Take one event; say whether it was understood."""
        self.session = text(event, "sessionID") or self.session
        part = mapping(event.get("part"))
        match event.get("type"):
            case "text":
                self._say("assistant_message", text(part, "text"))
            case "reasoning":
                self._say("thinking", text(part, "text"))
            case "tool_use":
                self._tool(part)
            case "error":
                self._error(mapping(event.get("error")))
            case "step_start" | "step_finish":
                pass
            case _:
                return False
        return True

    def _tool(self, part: Mapping[str, Any]) -> None:
        state = mapping(part.get("state"))
        given = mapping(state.get("input"))
        path = relative(text(given, "filePath", "path"))
        entry = tools.call(_KINDS, text(part, "tool"), given, path)
        call = text(part, "callID")
        if state.get("status") not in {"completed", "error"}:
            self.conversation.open_tool(call, entry)
            return
        code = whole(mapping(state.get("metadata")).get("exit"))
        failed = state.get("status") == "error" or bool(code)
        status = entries.FAILED if failed else entries.SUCCESS
        output = text(state, "output", "error")
        self.conversation.close_tool(call, tools.result(entry, output, status, code))

    def _error(self, error: Mapping[str, Any]) -> None:
        reason = text(mapping(error.get("data")), "message") or text(error, "message", "name")
        wants_login = error.get("name") == "ProviderAuthError"
        self.conversation.fail(reason or shown(error), setup_required=wants_login)

    def _say(self, kind: str, words: str) -> None:
        if words:
            self.conversation.add(entries.message(kind, words))


def _arguments(options: Options, session: str | None) -> Sequence[str]:
    # It asks before it looks outside the worktree, say; here nobody is there to be asked.
    arguments = ["run", "--format", "json", "--auto"]
    for setting in ("model", "agent"):
        if value := options.text(setting):
            arguments += [f"--{setting}", value]
    if session:
        arguments += ["--session", session, "--fork"]
    return arguments


OPENCODE = ProgramAgent(
    name="OPENCODE",
    program="opencode",
    npm_package="opencode-ai",
    passed_env=("OPENCODE_CONFIG_CONTENT", "OPENCODE_DISABLE_MODELS_FETCH"),
    variants={"DEFAULT": {}},
    kinds={"model": "text", "agent": "text"},
    command=lambda _options: ("opencode",),
    arguments=_arguments,
    new_reader=OpencodeReader,
    env={"OPENCODE_DISABLE_AUTOUPDATE": "1"},
)
"""It works with many providers and with free models, so no one key is asked for."""
