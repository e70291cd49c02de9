"""``QWEN_CODE``: Alibaba's Qwen Code, whose events have Claude Code's form."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from anyon.agents.claude_events import ClaudeReader
from anyon.agents.programs import Options, ProgramAgent
from anyon.agents.tools import ToolKind


class QwenReader(ClaudeReader):
    """Reads one run of Qwen Code."""

    program: ClassVar[str] = "Qwen Code"
    kinds: ClassVar[Mapping[str, ToolKind]] = {
        "read_file": "read",
        "read_many_files": "read",
        "list_directory": "read",
        "write_file": "write",
        "edit": "edit",
        "notebook_edit": "edit",
        "run_shell_command": "run",
        "glob": "search",
        "grep_search": "search",
        "web_fetch": "web",
        "web_search": "web",
        "agent": "task",
        "task": "task",
        "exit_plan_mode": "plan",
        "todo_write": "todos",
    }


def _arguments(options: Options, session: str | None) -> Sequence[str]:
    arguments = ["--output-format", "stream-json"]
    if options.flag("yolo"):
        arguments += ["--yolo"]
    if session:
        arguments += ["--fork-session", "--resume", session]
    return arguments


QWEN_CODE = ProgramAgent(
    name="QWEN_CODE",
    program="qwen",
    npm_package="@qwen-code/qwen-code",
    secret_names=("OPENAI_API_KEY", "DASHSCOPE_API_KEY"),
    passed_env=("OPENAI_BASE_URL", "OPENAI_MODEL"),
    capabilities=("SESSION_FORK",),
    variants={"DEFAULT": {"yolo": True}},
    kinds={"yolo": "flag"},
    command=lambda _options: ("qwen",),
    arguments=_arguments,
    new_reader=QwenReader,
    env={"QWEN_CODE_SUPPRESS_YOLO_WARNING": "1"},
)
"""The container is the sandbox, hence no warning about its absence."""
