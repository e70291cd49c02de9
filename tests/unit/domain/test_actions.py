"""Actions and prompts."""

from anyon.domain import actions, prompts
from anyon.domain.states import RunReason


def test_a_chain_is_one_action() -> None:
    """The chain of an attempt stands whole in its first action, in the wire's form, and survives JSON."""
    cleanup = actions.script("rm x", RunReason.CLEANUPSCRIPT)
    agent = actions.agent("do it", "SHELL", None, then=cleanup)
    chain = actions.from_json(
        actions.to_json(actions.script("npm i", RunReason.SETUPSCRIPT, agent))
    )
    reasons = []
    at: actions.Action | None = chain
    while at is not None:
        reasons.append(actions.reason_of(at))
        at = at["next_action"]
    assert reasons == [RunReason.SETUPSCRIPT, RunReason.CODINGAGENT, RunReason.CLEANUPSCRIPT]
    assert chain["typ"]["context"] == "SetupScript"
    assert chain["next_action"]["typ"]["executor_profile_id"] == {"executor": "SHELL"}


def test_follow_ups_name_their_session() -> None:
    """A run that resumes a session is of another type than a first one, and names its variant if it has one."""
    typ = actions.agent("more", "CODEX", "HIGH", session_id="s1")["typ"]
    assert typ["type"] == "CodingAgentFollowUpRequest"
    assert typ["session_id"] == "s1"
    assert typ["executor_profile_id"] == {"executor": "CODEX", "variant": "HIGH"}


def test_commands_record_no_environment() -> None:
    """A command's record holds its words and place only: what it was given otherwise may be secret."""
    action = actions.command(["env"], "/workspace")
    assert set(action["typ"]) == {"type", "argv", "cwd"}
    assert actions.reason_of(action) is RunReason.COMMAND


def test_prompts() -> None:
    """A prompt is the title and the description; a script is the description alone."""
    assert prompts.of_task("T", "D") == "T\n\nD"
    assert prompts.of_task("T", " ") == "T"
    assert prompts.of_task("T", "echo 1", takes_title=False) == "echo 1"
    assert prompts.of_task("echo 1", None, takes_title=False) == "echo 1"


def test_commit_messages_begin_with_one_short_line() -> None:
    """A commit's first line has at most 72 characters, whatever the title."""
    assert len(prompts.commit_message("x" * 500).splitlines()[0]) == 72
    assert prompts.commit_message("T", "D") == "T\n\nD"
    assert prompts.commit_message("T", "T") == "T"
