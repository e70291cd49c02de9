"""``COPILOT``: GitHub's Copilot CLI, which answers in plain text."""

from collections.abc import Sequence

from anyon.agents.programs import Options, ProgramAgent
from anyon.agents.readers import TextReader


def _arguments(options: Options, session: str | None) -> Sequence[str]:
    arguments = ["--no-color"]
    if options.flag("allow_all_tools"):
        arguments += ["--allow-all-tools"]
    for setting in ("model", "allow_tool", "deny_tool"):
        if value := options.text(setting):
            arguments += [f"--{setting.replace('_', '-')}", value]
    for setting in ("add_dir", "disable_mcp_server"):
        for value in options.texts(setting):
            arguments += [f"--{setting.replace('_', '-')}", value]
    if session:
        arguments += [f"--resume={session}"]
    return arguments


COPILOT = ProgramAgent(
    name="COPILOT",
    program="copilot",
    npm_package="@github/copilot",
    secret_names=("COPILOT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN"),
    variants={
        "DEFAULT": {"allow_all_tools": True},
        "GPT_5": {"allow_all_tools": True, "model": "gpt-5"},
        "CLAUDE_SONNET_4_5": {"allow_all_tools": True, "model": "claude-sonnet-4.5"},
        "CLAUDE_SONNET_4": {"allow_all_tools": True, "model": "claude-sonnet-4"},
    },
    kinds={
        "model": "text",
        "allow_tool": "text",
        "deny_tool": "text",
        "allow_all_tools": "flag",
        "add_dir": "texts",
        "disable_mcp_server": "texts",
    },
    command=lambda _options: ("copilot",),
    arguments=_arguments,
    new_reader=TextReader,
)
"""Its text tells no session, so that a follow-up begins a new one."""
