"""An agent's conversation, shown entry by entry."""

from typing import Any

from anyon.cli.conversations import Conversation, line_of


def entry(kind: str, content: str, **more: Any) -> dict[str, Any]:
    """Return an entry of the wire's form."""
    return {"timestamp": None, "entry_type": {"type": kind, **more}, "content": content}


def frame(op: str, index: int, content: str) -> dict[str, Any]:
    """Return a frame with one change."""
    value = {"type": "NORMALIZED_ENTRY", "content": entry("assistant_message", content)}
    return {"JsonPatch": [{"op": op, "path": f"/entries/{index}", "value": value}]}


def test_an_entry_is_shown_once_and_complete() -> None:
    """What may still grow is held back; what was shown is not shown again after a new connection."""
    conversation = Conversation()
    assert conversation.take(frame("add", 0, "he")) == []
    assert conversation.take(frame("replace", 0, "hello")) == []
    assert conversation.take(frame("add", 1, "wor")) == ["hello"]
    conversation.begin_again()
    assert conversation.take(frame("add", 0, "hello")) == []
    assert conversation.take(frame("add", 1, "world")) == []
    assert conversation.rest() == ["world"]
    assert conversation.rest() == []


def test_entries_are_told_apart_and_harmless() -> None:
    """Each kind has its mark, a failed tool call its status, and no control reaches the terminal."""
    status = {"status": "failed"}
    tool = entry("tool_use", "make\x1b[2J", tool_name="Bash", status=status)
    assert line_of(tool) == "* Bash: make [failed]"
    assert line_of(entry("error_message", "no\nkey")) == "! no\n! key"
    assert line_of(entry("assistant_message", "")) == ""
