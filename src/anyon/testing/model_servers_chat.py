"""The Chat Completions API, as Qwen Code and opencode speak it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from anyon.testing.model_servers import DONE, Event, Request, Step, Turn, next_step


def completions(request: Request) -> Sequence[Event]:
    """Answer ``POST /v1/chat/completions``."""
    step = next_step(_turns(request)) if request.get("tools") else Step("say", DONE)
    number = len(request["messages"])
    delta: dict[str, Any] = {"role": "assistant", "content": step.target}
    if step.kind != "say":
        name, given = _call(step, request)
        function = {"name": name, "arguments": json.dumps(given)}
        call = {"index": 0, "id": f"call_{number}", "type": "function", "function": function}
        delta = {"role": "assistant", "content": None, "tool_calls": [call]}
    reason = "stop" if step.kind == "say" else "tool_calls"
    common = {"id": f"chat_{number}", "created": 1, "model": request["model"]}
    usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    if not request.get("stream"):
        choice = {"index": 0, "message": delta, "finish_reason": reason}
        return [{**common, "object": "chat.completion", "choices": [choice], "usage": usage}]
    chunk = {**common, "object": "chat.completion.chunk"}
    end = {"index": 0, "delta": {}, "finish_reason": reason}
    return [
        {"data": {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}},
        {"data": {**chunk, "choices": [end], "usage": usage}},
        {"data": "[DONE]"},
    ]


def _call(step: Step, request: Request) -> tuple[str, Mapping[str, Any]]:
    offered = {tool["function"]["name"] for tool in request["tools"]}
    if step.kind == "write":
        content = f"{step.text}\n"
        if "write_file" in offered:
            return "write_file", {"file_path": _absolute(step.target, request), "content": content}
        return "write", {"filePath": step.target, "content": content}
    given = {"command": step.target, "description": "Run a command"}
    if "run_shell_command" in offered:
        return "run_shell_command", {**given, "is_background": False}
    return "bash", given


def _absolute(path: str, request: Request) -> str:
    """Return *path* below the directory that the conversation tells, which Qwen Code insists on."""
    everything = json.dumps(request["messages"])
    _, _, rest = everything.partition("working in the directory: ")
    directory = rest.split("\\n", 1)[0]
    return f"{directory}/{path}" if directory.startswith("/") else path


def _turns(request: Request) -> Sequence[Turn]:
    turns: list[Turn] = []
    for message in request["messages"]:
        content = message.get("content") or ""
        if not isinstance(content, str):
            content = "\n".join(part.get("text", "") for part in content)
        turns.append(Turn(message["role"] == "user", content, message["role"] == "tool"))
    return turns
