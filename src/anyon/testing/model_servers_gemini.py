"""The Gemini API, as Gemini CLI speaks it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from anyon.testing.model_servers import DONE, Event, Request, Step, Turn, next_step


def generate(request: Request) -> Sequence[Event]:
    """Answer ``POST /v1beta/models/MODEL:streamGenerateContent``."""
    schema = request.get("generationConfig", {}).get("responseJsonSchema")
    if schema:
        return _part({"text": json.dumps(_sample(schema))})
    step = next_step(_turns(request)) if request.get("tools") else Step("say", DONE)
    part: dict[str, Any] = {"text": step.target}
    if step.kind == "write":
        given = {"file_path": step.target, "content": f"{step.text}\n"}
        part = {"functionCall": {"name": "write_file", "args": given}}
    elif step.kind == "run":
        part = {"functionCall": {"name": "run_shell_command", "args": {"command": step.target}}}
    return _part(part)


def _sample(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an object of that form, for what is asked beside the conversation (how hard it is, say)."""
    by_type = {"STRING": "simple", "INTEGER": 1, "NUMBER": 1, "BOOLEAN": False, "ARRAY": []}
    return {
        name: by_type.get(str(kind.get("type")).upper(), {})
        for name, kind in schema["properties"].items()
    }


def _part(part: Mapping[str, Any]) -> Sequence[Event]:
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 10, "totalTokenCount": 20}
    candidate = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}
    return [{"data": {"candidates": [candidate], "usageMetadata": usage}}]


def generate_whole(request: Request) -> Sequence[Event]:
    """Answer ``POST /v1beta/models/MODEL:generateContent``, the form without a stream."""
    return [generate(request)[0]["data"]]


def _turns(request: Request) -> Sequence[Turn]:
    return [
        Turn(content["role"] == "user", part.get("text", ""), "functionResponse" in part)
        for content in request["contents"]
        for part in content["parts"]
    ]
