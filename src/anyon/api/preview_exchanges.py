"""One HTTP exchange with a server inside a project: streamed both ways, nothing kept in memory.

A connection is made for each: whoever listens inside may be another by the next request.
"""

import asyncio
import contextlib
from collections.abc import Callable

import h11
from starlette.types import Receive, Send

from anyon.api.preview_hosts import Headers
from anyon.domain.errors import AnyonError, EngineFailedError, InvalidInputError, UnavailableError
from anyon.services.previews import Visit

ANSWER_SECONDS = 300.0
"""How long a server inside may be silent before its answer begins."""
BODY_SECONDS = 60.0
"""How long a client may be silent in the middle of its body."""
_PIECE = 64 * 1024


async def exchange(  # noqa: PLR0917 - what goes in and how it comes back
    visit: Visit,
    head: h11.Request,
    receive: Receive,
    send: Send,
    outward: Callable[[Headers], Headers],
    closing: asyncio.Event,
) -> None:
    """Carry one request and its answer.

    EngineFailedError ``preview_bad_answer`` or UnavailableError ``preview_silent`` before the answer
    began; one that breaks off in the middle breaks off for the client too.
    """
    reader, writer = await asyncio.open_connection(sock=visit.socket)
    connection = h11.Connection(h11.CLIENT)
    asking = asyncio.create_task(_ask(connection, head, visit, receive, writer))
    answering = asyncio.create_task(_answer(connection, visit, reader, send, outward))
    leaving = asyncio.create_task(closing.wait())
    both = (answering, asking)
    try:
        # The asking ends when the client goes, and only then: a long answer that nobody wants any
        # more ends with it.
        await asyncio.wait({asking, answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        for done in both:
            if done.done():
                await done
                return
    finally:
        for task in (asking, answering, leaving):
            task.cancel()
        await asyncio.gather(asking, answering, leaving, return_exceptions=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _ask(
    connection: h11.Connection,
    head: h11.Request,
    visit: Visit,
    receive: Receive,
    writer: asyncio.StreamWriter,
) -> None:
    """Send the request, then wait for the client to go."""
    with contextlib.suppress(ConnectionError):  # it wants no more of it: its answer says why
        writer.write(connection.send(head) or b"")
        while True:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    message = await receive()
            except TimeoutError:
                raise InvalidInputError(
                    "the body did not come in time", code="body_too_slow"
                ) from None
            if message["type"] == "http.disconnect":
                return
            if body := message.get("body", b""):
                await visit.speak()
                writer.write(connection.send(h11.Data(data=body)) or b"")
                await writer.drain()
            if not message.get("more_body", False):
                break
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(
    connection: h11.Connection,
    visit: Visit,
    reader: asyncio.StreamReader,
    send: Send,
    outward: Callable[[Headers], Headers],
) -> None:
    is_traffic, has_begun = True, False
    while True:
        try:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                # Before the answer there is a deadline; after it, silence is the server's own affair.
                async with asyncio.timeout(None if has_begun else ANSWER_SECONDS):
                    connection.receive_data(await reader.read(_PIECE))
                continue
        except (h11.RemoteProtocolError, OSError) as error:
            raise _broken(error) from error
        except TimeoutError:
            raise UnavailableError(
                "the server in the project does not answer", code="preview_silent"
            ) from None
        if isinstance(event, h11.Response):
            headers = outward(list(event.headers))
            kinds = [value for name, value in headers if name == b"content-type"]
            # What a server pushes while nobody does anything is output, and no activity.
            is_traffic = not any(kind.startswith(b"text/event-stream") for kind in kinds)
            has_begun = True
            start = {"type": "http.response.start", "status": event.status_code}
            await send({**start, "headers": headers})
        elif isinstance(event, h11.Data):
            await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
            if is_traffic:
                visit.saw()
        elif isinstance(event, h11.EndOfMessage):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise _broken(None)


def _broken(error: Exception | None) -> AnyonError:
    return EngineFailedError(
        f"the server in the project gave no answer that is HTTP: {error or 'it hung up'}",
        code="preview_bad_answer",
        hint="See its own output; it may speak another protocol on this port.",
    )
