"""All agents, by name: the only place that names them."""

from collections.abc import Mapping
from types import MappingProxyType

from anyon.agents.agent import Agent
from anyon.agents.amp import AMP
from anyon.agents.claude_code import CLAUDE_CODE
from anyon.agents.codex import CODEX
from anyon.agents.copilot import COPILOT
from anyon.agents.cursor_agent import CURSOR_AGENT
from anyon.agents.gemini import GEMINI
from anyon.agents.opencode import OPENCODE
from anyon.agents.qwen_code import QWEN_CODE
from anyon.agents.scripted import SCRIPTED
from anyon.agents.shell import SHELL
from anyon.domain.errors import InvalidInputError

_AGENTS: tuple[Agent, ...] = (
    CLAUDE_CODE,
    CODEX,
    GEMINI,
    OPENCODE,
    QWEN_CODE,
    AMP,
    COPILOT,
    CURSOR_AGENT,
    SHELL,
    SCRIPTED,
)
_REGISTRY: Mapping[str, Agent] = MappingProxyType({agent.name: agent for agent in _AGENTS})
_ALIASES = {"CURSOR": "CURSOR_AGENT", "CLAUDE": "CLAUDE_CODE", "QWEN": "QWEN_CODE"}


def registry() -> Mapping[str, Agent]:
    """Return all agents by their wire names, the one people know best first."""
    return _REGISTRY


def find(name: str) -> Agent:
    """Return the agent of that name, also spelt as ``claude-code`` or ``CURSOR``.

    Raises InvalidInputError (code ``agent_unknown``), listing the known ones.
    """
    wire = name.strip().upper().replace("-", "_")
    agent = _REGISTRY.get(_ALIASES.get(wire, wire))
    if agent is None:
        known = ", ".join(sorted(_REGISTRY))
        raise InvalidInputError(
            f"there is no agent {name[:100]!r}",
            code="agent_unknown",
            hint=f"Known agents: {known}.",
        )
    return agent
