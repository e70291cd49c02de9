"""The Messages API, as Claude Code speaks it."""

import json
from collections.abc import Sequence
from typing import Any

from anyon.testing.model_servers import DONE, Event, Request, Step, Turn, next_step

_USAGE = {"input_tokens": 10, "output_tokens": 10}


def messages(request: Request) -> Sequence[Event]:
    """Answer ``POST /v1/messages``."""
    # Requests without tools are asked beside the conversation, for a title, say.
    step = next_step(_turns(request)) if request.get("tools") else Step("say", DONE)
    block, delta = _block(step, len(request["messages"]))
    reason = "end_turn" if step.kind == "say" else "tool_use"
    message = {
        "id": f"msg_{len(request['messages'])}",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "stop_sequence": None,
        "usage": _USAGE,
    }
    if not request.get("stream"):
        return [{**message, "content": [{"type": "text", "text": DONE}], "stop_reason": "end_turn"}]
    start = {**message, "content": [], "stop_reason": None}
    return [
        _event("message_start", message=start),
        _event("content_block_start", index=0, content_block=block),
        _event("content_block_delta", index=0, delta=delta),
        _event("content_block_stop", index=0),
        _event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage=_USAGE),
        _event("message_stop"),
    ]


def count_tokens(_request: Request) -> Sequence[Event]:
    """Answer ``POST /v1/messages/count_tokens``."""
    return [{"input_tokens": 10}]


def _block(step: Step, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    if step.kind == "say":
        return {"type": "text", "text": ""}, {"type": "text_delta", "text": step.target}
    name = "Write" if step.kind == "write" else "Bash"
    given = (
        {"file_path": step.target, "content": f"{step.text}\n"}
        if step.kind == "write"
        else {"command": step.target, "description": "Run a command"}
    )
    block = {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": {}}
    return block, {"type": "input_json_delta", "partial_json": json.dumps(given)}


def _turns(request: Request) -> Sequence[Turn]:
    turns: list[Turn] = []
    for message in request["messages"]:
        is_user = message["role"] == "user"
        content = message["content"]
        if isinstance(content, str):
            turns.append(Turn(is_user, content))
            continue
        turns.extend(
            Turn(is_user, block.get("text", ""), block["type"] == "tool_result")
            for block in content
        )
    return turns


def _event(kind: str, **fields: Any) -> Event:
    return {"event": kind, "data": {"type": kind, **fields}}
