"""A model for real coding agents to talk to: on loopback, with answers that their prompt spells out.

A prompt's lines that begin with ``@`` are what the model does, one a turn:
``@write FILE TEXT``, ``@run COMMAND``, ``@say TEXT``; when they are used up it says that it is done.
What was done is read from the request alone, so that many agents can share one server,
follow-ups work, and the server can be another process than whoever wrote the prompt.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from aiohttp import web

Request = Mapping[str, Any]
Event = Mapping[str, Any]

DONE = "All is done."


@dataclass(frozen=True, slots=True)
class Step:
    """One thing the model does: ``write`` (*target* is a file), ``run`` (a command) or ``say``."""

    kind: Literal["write", "run", "say"]
    target: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation, whatever the API's form: who, what was said, is it a tool's result."""

    is_user: bool
    text: str = ""
    is_result: bool = False


Answer = Callable[[Request], Sequence[Event]]
"""Answers one request of an API: with events of a stream (``event``, ``data``), or one plain body."""


def steps(prompt: str) -> Sequence[Step]:
    """Return what *prompt* spells out."""
    found: list[Step] = []
    for line in prompt.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "@write":
            file, _, text = rest.partition(" ")
            found.append(Step("write", file, text))
        elif word == "@run":
            found.append(Step("run", rest))
        elif word == "@say":
            found.append(Step("say", rest))
    return found


def next_step(turns: Sequence[Turn]) -> Step:
    """Return what the model does next: the last prompt's steps, as many as were not answered yet."""
    prompt = max(
        (index for index, turn in enumerate(turns) if turn.is_user and steps(turn.text)),
        default=None,
    )
    if prompt is None:
        return Step("say", DONE)
    done = sum(turn.is_result for turn in turns[prompt + 1 :])
    todo = steps(turns[prompt].text)[done:]
    return todo[0] if todo else Step("say", DONE)


class ModelServer:
    """Speaks the APIs of the dialects it is given, each at its own path.

    ``url`` is its address without a path; ``requests`` are the bodies it was sent, for looking at.
    """

    def __init__(self, routes: Mapping[str, Answer], *, port: int = 0) -> None:
        self._routes = routes
        self._port = port
        self._runner: web.AppRunner | None = None
        self.requests: list[Request] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        """Begin to listen on loopback, on a free port unless one was given."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = f"/{request.match_info['path']}"
        answer = next((found for end, found in self._routes.items() if path.endswith(end)), None)
        if request.headers.get("Upgrade"):
            # What tells Codex to go on over HTTP at once.
            return web.json_response({"error": {"message": "HTTP only"}}, status=426)
        if request.method != "POST" or answer is None:
            return web.json_response({"error": {"message": f"no such thing: {path}"}}, status=404)
        body = await request.json()
        self.requests.append(body)
        events = answer(body)
        if "event" not in events[0] and "data" not in events[0]:
            return web.json_response(events[0])
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            name = f"event: {event['event']}\n" if event.get("event") else ""
            data = event["data"] if isinstance(event["data"], str) else json.dumps(event["data"])
            await response.write(f"{name}data: {data}\n\n".encode())
        await response.write_eof()
        return response
