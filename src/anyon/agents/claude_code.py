"""``CLAUDE_CODE``: Anthropic's Claude Code, in print mode with a stream of JSON events."""

from collections.abc import Sequence

from anyon.agents.claude_events import ClaudeReader
from anyon.agents.programs import Options, ProgramAgent


def _command(options: Options) -> Sequence[str]:
    return ("ccr", "code") if options.flag("claude_code_router") else ("claude",)


def _arguments(options: Options, session: str | None) -> Sequence[str]:
    arguments = ["-p", "--verbose", "--output-format", "stream-json"]
    if options.flag("plan"):
        arguments += ["--permission-mode", "plan"]
    elif options.flag("approvals"):
        arguments += ["--permission-mode", "default"]
    elif options.flag("dangerously_skip_permissions"):
        arguments += ["--dangerously-skip-permissions"]
    if model := options.text("model"):
        arguments += ["--model", model]
    if session:
        arguments += ["--fork-session", "--resume", session]
    return arguments


CLAUDE_CODE = ProgramAgent(
    name="CLAUDE_CODE",
    program="claude",
    npm_package="@anthropic-ai/claude-code",
    secret_names=("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_AUTH_TOKEN"),
    passed_env=("ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL", "ANTHROPIC_SMALL_FAST_MODEL"),
    capabilities=("SESSION_FORK",),
    variants={
        "DEFAULT": {"dangerously_skip_permissions": True},
        "PLAN": {"plan": True},
        "APPROVALS": {"approvals": True},
    },
    kinds={
        "claude_code_router": "flag",
        "plan": "flag",
        "approvals": "flag",
        "dangerously_skip_permissions": "flag",
        "model": "text",
    },
    command=_command,
    arguments=_arguments,
    new_reader=ClaudeReader,
    # The container is the sandbox: without this it refuses to skip permissions as root. The
    # other two keep it from calling home and from changing its own version in mid-life.
    env={
        "IS_SANDBOX": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    },
)
"""A follow-up forks the session, so that an earlier turn can be taken up again."""
