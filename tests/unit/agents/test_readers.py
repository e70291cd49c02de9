"""What the readers make of what the agents print, recorded from the real programs."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyon.agents.agent import OutputReader, Patch
from anyon.agents.conversations import BLOCK_CHARACTERS
from anyon.agents.lines import KEPT_BYTES, LINE_LIMIT_BYTES
from anyon.agents.registry import find, registry

RECORDINGS = Path(__file__).parent / "recordings"


def folded(patches: Sequence[Patch]) -> list[dict[str, Any]]:
    """Apply patches as a client does: strictly, a new one at the end, another on what is there."""
    entries: list[Any] = []
    for patch in patches:
        assert (patch.index == len(entries)) is patch.is_new
        entries[patch.index : patch.index + 1] = [patch.entry]
    return entries


def read(reader: OutputReader, output: bytes, *, code: int | None = 0) -> list[dict[str, Any]]:
    """Read a whole run's stdout."""
    return folded([*reader.feed(output), *reader.finish(code)])


def kinds(entries: list[dict[str, Any]]) -> list[str]:
    """Return what the entries are, an action in the place of ``tool_use``."""
    types = [entry["entry_type"] for entry in entries]
    return [kind.get("action_type", {}).get("action", kind["type"]) for kind in types]


@pytest.mark.parametrize("agent", ["claude_code", "codex", "gemini", "qwen_code", "opencode"])
def test_a_real_run_is_read_whole(agent: str) -> None:
    """A file written, a command run that fails and a last word are all there, with their session."""
    reader = find(agent).reader()
    entries = read(reader, (RECORDINGS / f"{agent}.jsonl").read_bytes())
    assert [kind for kind in kinds(entries) if kind not in {"system_message", "user_message"}] == [
        "file_edit",
        "command_run",
        "assistant_message",
    ]
    tools = [entry["entry_type"] for entry in entries if entry["entry_type"]["type"] == "tool_use"]
    assert tools[0]["action_type"]["path"] == "g.txt"
    assert tools[0]["status"] == {"status": "success"}
    assert tools[1]["action_type"]["command"] == "cat g.txt; false"
    assert "hello" in tools[1]["action_type"]["result"]["output"]
    if agent != "gemini":  # which does not tell its failing commands apart
        assert tools[1]["status"] == {"status": "failed"}
        ended = tools[1]["action_type"]["result"]["exit_status"]
        assert ended == {"type": "exit_code", "code": 1}
    assert entries[-1]["content"] == "bye"
    assert reader.session_id


def test_a_missing_key_asks_for_the_set_up() -> None:
    """What Claude Code says without a key becomes the one error that offers the set-up."""
    output = (RECORDINGS / "claude_code_no_key.jsonl").read_bytes()
    entries = read(find("claude-code").reader(), output, code=1)
    errors = [entry for entry in entries if entry["entry_type"]["type"] == "error_message"]
    assert [error["entry_type"]["error_type"] for error in errors] == [{"type": "setup_required"}]


def test_a_tool_call_is_created_and_then_replaced() -> None:
    """A call shows at once, and its result takes the same place."""
    lines = (RECORDINGS / "codex.jsonl").read_bytes().splitlines(keepends=True)
    reader = find("codex").reader()
    patches = [patch for line in lines for patch in reader.feed(line)]
    calls = [patch for patch in patches if patch.entry["entry_type"]["type"] == "tool_use"]
    states = [
        (call.index, call.is_new, call.entry["entry_type"]["status"]["status"]) for call in calls
    ]
    assert states == [
        (0, True, "created"),
        (0, False, "success"),
        (1, True, "created"),
        (1, False, "failed"),
    ]


def test_a_call_without_a_result_fails_at_the_end() -> None:
    """Whatever is still open when the run ends is closed as failed, and the end is told."""
    reader = find("codex").reader()
    started = (
        b'{"type":"item.started","item":{"id":"1","type":"command_execution","command":"x"}}\n'
    )
    entries = read(reader, started, code=None)
    assert entries[0]["entry_type"]["status"] == {"status": "failed"}
    assert entries[1]["entry_type"]["type"] == "error_message"


def claude(*blocks: dict[str, Any]) -> bytes:
    """Return an event of Claude Code with these blocks."""
    return json.dumps({"type": "assistant", "message": {"content": blocks}}).encode() + b"\n"


def test_todos_thoughts_and_diffs_of_claude() -> None:
    """Thinking, the todo list, an edit as a diff and a foreign tool each have their own form."""

    def use(name: str, **given: Any) -> dict[str, Any]:
        return {"type": "tool_use", "id": name, "name": name, "input": given}

    output = claude(
        {"type": "thinking", "thinking": "hm"},
        use("TodoWrite", todos=[{"content": "a", "status": "in_progress"}]),
        use(
            "Edit",
            file_path="/workspace/.worktrees/x/a.py",
            old_string="1\n2\n",
            new_string="1\n3\n",
        ),
        use("mcp__db__ask", q=1),
    )
    entries = read(find("claude-code").reader(), output)
    assert kinds(entries) == ["thinking", "todo_management", "file_edit", "tool"]
    actions = [entry["entry_type"].get("action_type") for entry in entries]
    assert actions[1]["todos"] == [{"content": "a", "status": "in_progress", "priority": None}]
    assert actions[2]["path"] == "a.py"
    diff = "--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n 1\n-2\n+3\n"
    assert actions[2]["changes"] == [
        {"action": "edit", "unified_diff": diff, "has_line_numbers": False}
    ]
    assert actions[3]["tool_name"] == "mcp:db:ask"


def test_a_refused_call_is_denied() -> None:
    """A call that the permissions forbid is told apart from one that fails, with the reason."""
    write = {"type": "tool_use", "id": "1", "name": "Write", "input": {"file_path": "a"}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": "plan mode", "is_error": True}
    events = [
        {
            "type": "system",
            "subtype": "permission_denied",
            "tool_use_id": "1",
            "message": "plan mode",
        },
        {"type": "user", "message": {"content": [result]}},
    ]
    output = claude(write) + b"".join(json.dumps(event).encode() + b"\n" for event in events)
    (entry,) = read(find("claude-code").reader(), output)
    assert entry["entry_type"]["status"] == {"status": "denied", "reason": "plan mode"}


def test_what_is_no_event_is_shown_as_it_is() -> None:
    """Broken JSON, unknown events, plain lines and a cut last line become system messages."""
    output = b'plain\n{"type":"assistant","mess\n{"type":"never_heard_of","x":1}\n[1]\n{"cut'
    (entry,) = read(find("claude-code").reader(), output)
    assert entry["entry_type"]["type"] == "system_message"
    assert entry["content"].encode() == output


@pytest.mark.parametrize(
    "line",
    [
        b'{"x":NaN}',
        b'{"x":1e999}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"x":' + b"9" * 5000 + b"}",
    ],
)
def test_json_that_cannot_be_passed_on_is_text(line: bytes) -> None:
    """Numbers that JSON does not have, and depths that no parser takes, do no harm."""
    (entry, *_) = read(find("claude-code").reader(), line)
    json.dumps(entry, allow_nan=False)
    assert entry["entry_type"]["type"] == "system_message"


def test_half_a_surrogate_can_be_sent() -> None:
    """An escaped lone surrogate, which UTF-8 cannot hold, is replaced."""
    (entry,) = read(find("claude-code").reader(), claude({"type": "text", "text": "a\ud800b"}))
    assert entry["content"] == "a?b"


def test_a_very_long_line_is_bounded() -> None:
    """Of a line that is too long its head is kept and its length told; the next line is read."""
    output = b"x" * (LINE_LIMIT_BYTES + 10) + b"\n" + claude({"type": "text", "text": "next"})
    entries = read(find("claude-code").reader(), output)
    shown = sum(len(entry["content"]) for entry in entries[:-1])
    assert KEPT_BYTES <= shown < KEPT_BYTES + 200
    assert str(LINE_LIMIT_BYTES + 10 - KEPT_BYTES) in entries[-2]["content"]
    assert entries[-1]["content"] == "next"


def test_a_long_event_is_read() -> None:
    """An event of some megabytes, a picture say, is still an event."""
    (entry,) = read(find("claude-code").reader(), claude({"type": "text", "text": "y" * 5_000_000}))
    assert entry["entry_type"]["type"] == "assistant_message"
    assert len(entry["content"]) < 300_000


def test_plain_text_keeps_every_character() -> None:
    """A script's output is shown whole, cut into entries of a bounded size, stderr apart."""
    reader = find("shell").reader()
    text = "가나다\n" * 10_000
    data = text.encode()
    patches = [
        patch for at in range(0, len(data), 1000) for patch in reader.feed(data[at : at + 1000])
    ]
    patches += [*reader.feed(b"oops\n", stderr=True), *reader.finish(3)]
    entries = folded(patches)
    said = [entry for entry in entries if entry["entry_type"]["type"] == "assistant_message"]
    assert "".join(entry["content"] for entry in said).replace("\n", "") == text.replace("\n", "")
    assert max(len(entry["content"]) for entry in said) <= BLOCK_CHARACTERS
    assert [entry["content"] for entry in entries[-2:]] == ["oops", "It ended with exit code 3."]


_NAMES = ["type", "item", "message", "content", "id", "subtype", "text", "input", "status", "part"]
_WORDS = [
    "assistant",
    "user",
    "result",
    "tool_use",
    "tool_result",
    "item.completed",
    "error",
    "text",
]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(_WORDS) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_NAMES) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
_OBJECT = st.dictionaries(st.sampled_from(_NAMES), _JSON, max_size=6)
_LINE = (
    st.binary(max_size=20)
    | st.sampled_from(
        [
            line
            for file in sorted(RECORDINGS.glob("*.jsonl"))
            for line in file.read_bytes().splitlines()
        ]
    )
    | st.builds(
        lambda kind, rest: json.dumps({**rest, "type": kind}).encode(),
        st.sampled_from(_WORDS),
        _OBJECT,
    )
)


@pytest.mark.parametrize("name", sorted(registry()))
@settings(deadline=None, max_examples=60)
@given(lines=st.lists(_LINE, max_size=6), cuts=st.lists(st.integers(0, 400), max_size=6))
def test_pieces_make_no_difference(name: str, lines: list[bytes], cuts: list[int]) -> None:
    """Arbitrary bytes never raise, and in whatever pieces they come the conversation is the same."""
    data = b"\n".join(lines)
    whole, parts = find(name).reader(), find(name).reader()
    expected = read(whole, data)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    patches: list[Patch] = []
    for start, end in pairwise(edges):
        patches += parts.feed(data[start:end])
    patches += parts.finish(0)
    assert folded(patches) == expected
    assert parts.session_id == whole.session_id
    json.dumps(expected, allow_nan=False, ensure_ascii=False).encode()
