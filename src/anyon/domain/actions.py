"""What a process was asked to do, in the wire's form (executor action), and what comes after it.

An action is the whole rest of a chain: ``{"typ": …, "next_action": action or None}``.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from anyon.domain.states import RunReason

Action = Mapping[str, Any]
_CONTEXTS = {
    RunReason.SETUPSCRIPT: "SetupScript",
    RunReason.CLEANUPSCRIPT: "CleanupScript",
    RunReason.DEVSERVER: "DevServer",
}


def script(script: str, reason: RunReason, then: Action | None = None) -> Action:
    """Return the action of a script, and what comes after it."""
    typ = {
        "type": "ScriptRequest",
        "script": script,
        "language": "Bash",
        "context": _CONTEXTS[reason],
    }
    return {"typ": typ, "next_action": then}


def agent(
    prompt: str,
    agent: str,
    variant: str | None,
    *,
    session_id: str | None = None,
    then: Action | None = None,
) -> Action:
    """Return the action of an agent's run, which resumes *session_id* if given."""
    profile = {"executor": agent} if variant is None else {"executor": agent, "variant": variant}
    if session_id is None:
        typ = {
            "type": "CodingAgentInitialRequest",
            "prompt": prompt,
            "executor_profile_id": profile,
        }
    else:
        typ = {
            "type": "CodingAgentFollowUpRequest",
            "prompt": prompt,
            "session_id": session_id,
            "executor_profile_id": profile,
        }
    return {"typ": typ, "next_action": then}


def command(argv: Sequence[str], cwd: str) -> Action:
    """Return the action of a command. Its environment and stdin are not recorded: they may be secret."""
    return {"typ": {"type": "CommandRequest", "argv": list(argv), "cwd": cwd}, "next_action": None}


def reason_of(action: Action) -> RunReason:
    """Return what kind of process carries out *action*."""
    typ = action["typ"]
    if typ["type"] == "CommandRequest":
        return RunReason.COMMAND
    if typ["type"] == "ScriptRequest":
        return next(reason for reason, word in _CONTEXTS.items() if word == typ["context"])
    return RunReason.CODINGAGENT


def to_json(action: Action) -> str:
    """Write an action."""
    return json.dumps(action, ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> Action:
    """Read an action."""
    action: Action = json.loads(text)
    return action
