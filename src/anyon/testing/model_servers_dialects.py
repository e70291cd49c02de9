"""All the APIs that the scripted model speaks, and a program that serves them until it is ended."""

import argparse
import asyncio
from collections.abc import Mapping

from anyon.testing.model_servers import Answer, ModelServer
from anyon.testing.model_servers_anthropic import count_tokens, messages
from anyon.testing.model_servers_chat import completions
from anyon.testing.model_servers_gemini import generate, generate_whole
from anyon.testing.model_servers_responses import responses

DIALECTS: Mapping[str, Answer] = {
    "/v1/messages": messages,
    "/v1/messages/count_tokens": count_tokens,
    "/responses": responses,
    "/chat/completions": completions,
    ":streamGenerateContent": generate,
    ":generateContent": generate_whole,
}
"""By the end of the path; each agent's base URL is the server's, with ``/v1`` for OpenAI's."""


async def serve(port: int) -> None:
    """Serve on loopback until cancelled, telling the address on stdout."""
    async with ModelServer(DIALECTS, port=port) as server:
        print(server.url, flush=True)  # noqa: T201 - whoever started it reads it there
        await asyncio.Event().wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="A scripted model for coding agents, on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    try:
        asyncio.run(serve(parser.parse_args().port))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
