"""The Responses API, as Codex speaks it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from anyon.testing.model_servers import Event, Request, Step, Turn, next_step


def responses(request: Request) -> Sequence[Event]:
    """Answer ``POST /v1/responses``."""
    number = len(request["input"])
    item = _item(next_step(_turns(request)), request, number)
    response = {"id": f"resp_{number}", "object": "response", "model": request["model"]}
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 10,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 20,
    }
    over = {**response, "status": "completed", "output": [item], "usage": usage}
    return [
        _event("response.created", response={**response, "status": "in_progress", "output": []}),
        _event("response.output_item.added", output_index=0, item=item),
        _event("response.output_item.done", output_index=0, item=item),
        _event("response.completed", response=over),
    ]


def _item(step: Step, request: Request, number: int) -> dict[str, Any]:
    if step.kind == "say":
        content = [{"type": "output_text", "text": step.target, "annotations": []}]
        return {
            "type": "message",
            "id": f"msg_{number}",
            "role": "assistant",
            "status": "completed",
            "content": content,
        }
    return _call(step, _tools(request), number)


def _call(step: Step, tools: Mapping[str, str], number: int) -> dict[str, Any]:
    """Return the call of that one of the *tools* that does *step*; which there are depends on the model."""
    patch = f"*** Begin Patch\n*** Add File: {step.target}\n+{step.text}\n*** End Patch"
    is_write = step.kind == "write"
    call = {"id": f"ctc_{number}", "call_id": f"call_{number}", "status": "completed"}
    if tools.get("exec") == "custom":
        inner = (
            f"tools.apply_patch({json.dumps(patch)})"
            if is_write
            else f"tools.exec_command({json.dumps({'cmd': step.target})})"
        )
        return {
            **call,
            "type": "custom_tool_call",
            "name": "exec",
            "input": f"text(await {inner});",
        }
    if is_write and tools.get("apply_patch") == "custom":
        return {**call, "type": "custom_tool_call", "name": "apply_patch", "input": patch}
    command = f"apply_patch <<'END'\n{patch}\nEND" if is_write else step.target
    given: Mapping[str, Any] = {"command": ["sh", "-c", command]}
    name = "shell"
    if "exec_command" in tools:
        name, given = "exec_command", {"cmd": command}
    elif "shell_command" in tools:
        name, given = "shell_command", {"command": command}
    return {**call, "type": "function_call", "name": name, "arguments": json.dumps(given)}


def _tools(request: Request) -> Mapping[str, str]:
    """Return the kinds of the tools by name, wherever in the request they are offered."""
    found: dict[str, str] = {}
    waiting = [*request.get("tools", [])]
    for item in request["input"]:
        if item["type"] == "additional_tools":
            waiting += item["tools"]
    while waiting:
        offered = waiting.pop()
        waiting += offered.get("tools", [])
        found[offered.get("name", "")] = offered["type"]
    return found


def _turns(request: Request) -> Sequence[Turn]:
    turns: list[Turn] = []
    for item in request["input"]:
        if item["type"].endswith("_call_output"):
            turns.append(Turn(is_user=False, is_result=True))
        elif item["type"] == "message":
            words = "\n".join(part.get("text", "") for part in item["content"])
            turns.append(Turn(item["role"] == "user", words))
    return turns


def _event(kind: str, **fields: Any) -> Event:
    return {"event": kind, "data": {"type": kind, **fields}}
