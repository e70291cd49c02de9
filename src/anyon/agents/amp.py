"""``AMP``: Sourcegraph's Amp, whose events have Claude Code's form."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from anyon.agents.claude_events import ClaudeReader
from anyon.agents.programs import Options, ProgramAgent
from anyon.agents.tools import ToolKind


class AmpReader(ClaudeReader):
    """Reads one run of Amp."""

    program: ClassVar[str] = "Amp"
    kinds: ClassVar[Mapping[str, ToolKind]] = {
        **ClaudeReader.kinds,
        "create_file": "write",
        "edit_file": "edit",
        "list_directory": "read",
        "glob": "search",
        "finder": "search",
        "codebase_search_agent": "search",
        "read_web_page": "web",
        "web_search": "web",
        "todo_write": "todos",
    }


def _arguments(options: Options, session: str | None) -> Sequence[str]:
    arguments = ["threads", "continue", session] if session else []
    arguments += ["--execute", "--stream-json"]
    if options.flag("dangerously_allow_all"):
        arguments += ["--dangerously-allow-all"]
    return arguments


AMP = ProgramAgent(
    name="AMP",
    program="amp",
    npm_package="@sourcegraph/amp",
    secret_names=("AMP_API_KEY",),
    passed_env=("AMP_URL",),
    capabilities=("SESSION_FORK",),
    variants={"DEFAULT": {"dangerously_allow_all": True}},
    kinds={"dangerously_allow_all": "flag"},
    command=lambda _options: ("amp",),
    arguments=_arguments,
    new_reader=AmpReader,
)
"""A follow-up goes on in the same thread."""
