"""One connection to a server: requests in the envelope, server-sent events, WebSockets."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx
import httpx_sse
from pydantic import BaseModel, TypeAdapter, ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidHandshake, InvalidStatus

from anyon.sdk.errors import ApiError, UnreachableError

T = TypeVar("T")

_OPEN_SECONDS = 10.0

Params = Mapping[str, str | int | float | bool | None]


class Connection:
    """Speaks the server's language; raises ApiError for its errors, UnreachableError for silence."""

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout: float = 120.0,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        # trust_env is off: a proxy meant for the outside must not see calls to the own machine.
        self._http = httpx.AsyncClient(
            base_url=self.base_url,
            headers=self._headers,
            transport=transport,
            timeout=httpx.Timeout(timeout, connect=10.0),
            trust_env=False,
        )

    async def close(self) -> None:
        """Let go of the sockets."""
        await self._http.aclose()

    async def call(
        self,
        kind: type[T],
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: BaseModel | Mapping[str, Any] | None = None,
        file: tuple[str, str, bytes] | None = None,
        waits: bool = False,
    ) -> T:
        """Send a request and return the envelope's data as *kind*; *waits*: however long it takes.

        Whatever may wake a project waits: files that come back from the store can take longer than
        any timeout of a client, and the server has a deadline for it.

        *file* (a field, a name and bytes) is sent as a form.
        """
        content = None
        if isinstance(body, BaseModel):
            content = body.model_dump_json(exclude_unset=True).encode()
        elif body is not None:
            content = json.dumps(body).encode()
        try:
            response = await self._http.request(
                method,
                path,
                params=_without_nulls(params),
                content=content,
                files=None if file is None else {file[0]: file[1:]},
                headers={"Content-Type": "application/json"} if content is not None else None,
                timeout=httpx.Timeout(None, connect=10.0) if waits else httpx.USE_CLIENT_DEFAULT,
            )
        except httpx.HTTPError as error:
            raise UnreachableError(self.base_url, _words(error)) from error
        return _data(kind, response)

    async def bare(self, path: str) -> Any:
        """Return a JSON answer that has no envelope."""
        return json.loads(await self.text(path))

    async def text(self, path: str) -> str:
        """Return a plain text answer."""
        try:
            response = await self._http.get(path)
        except httpx.HTTPError as error:
            raise UnreachableError(self.base_url, _words(error)) from error
        if response.status_code != 200:
            raise _told(response)
        return response.text

    @asynccontextmanager
    async def stream(
        self, path: str, params: Params, headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """Open an answer that is no JSON; an error is told as ever, a break is UnreachableError."""
        try:
            async with self._http.stream(
                "GET", path, params=_without_nulls(params), headers=headers
            ) as response:
                if not response.is_success:
                    await response.aread()
                    raise _told(response)
                yield response
        except httpx.HTTPError as error:
            raise UnreachableError(self.base_url, _words(error)) from error

    async def events(
        self, path: str, *, params: Params | None = None, last_id: str | None = None
    ) -> AsyncIterator[httpx_sse.ServerSentEvent]:
        """Yield the events of one connection; UnreachableError when it breaks."""
        headers = {"Last-Event-ID": last_id} if last_id else {}
        try:
            async with httpx_sse.aconnect_sse(
                self._http, "GET", path, params=_without_nulls(params), headers=headers
            ) as source:
                if source.response.status_code != 200:
                    await source.response.aread()
                    raise _told(source.response)
                async for event in source.aiter_sse():
                    yield event
        except httpx.HTTPError as error:
            raise UnreachableError(self.base_url, _words(error)) from error

    @asynccontextmanager
    async def websocket(
        self, path: str, *, params: Params | None = None, waits: bool = False
    ) -> AsyncIterator[ClientConnection]:
        """Open a WebSocket; the server's refusal is an ApiError. *waits*: however long it takes."""
        query = urlencode(_without_nulls(params) or {})
        address = f"ws{self.base_url.removeprefix('http')}{path}{'?' + query if query else ''}"
        opening = connect(
            address,
            additional_headers=self._headers,
            proxy=None,
            max_size=64 * 1024 * 1024,
            open_timeout=None if waits else _OPEN_SECONDS,
        )
        try:
            websocket = await opening
        except InvalidStatus as error:
            body = error.response.body or b""
            raise _told(httpx.Response(error.response.status_code, content=bytes(body))) from error
        except (OSError, InvalidHandshake, TimeoutError) as error:
            raise UnreachableError(self.base_url, _words(error)) from error
        try:
            yield websocket
        finally:
            await websocket.close()

    async def frames(self, path: str, *, params: Params | None = None) -> AsyncGenerator[Any, None]:
        """Yield a stream's JSON frames until the server closes it cleanly."""
        async with self.websocket(path, params=params) as websocket:
            try:
                async for frame in websocket:
                    yield json.loads(frame)
            except ConnectionClosedError as error:
                raise UnreachableError(self.base_url, _words(error)) from error


async def wait_before_retry(attempt: int) -> None:
    """Wait longer with each failed *attempt* to connect again, from 0.2 s to 3 s."""
    await asyncio.sleep(min(3.0, 0.2 * 2**attempt))


def _without_nulls(params: Params | None) -> dict[str, str] | None:
    if params is None:
        return None
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in params.items()
        if value is not None
    }


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _data(kind: type[T], response: httpx.Response) -> T:
    if not response.is_success:
        raise _told(response)
    try:
        envelope = response.json()
        if envelope["success"] is not True:
            raise _told(response)
        return TypeAdapter(kind).validate_python(envelope["data"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise ApiError(
            response.status_code,
            "bad_answer",
            f"the server's answer cannot be read: {_words(error)[:500]}",
            "Compare `anyon version` here and on the server.",
        ) from error


def _told(response: httpx.Response) -> ApiError:
    """Return the error that a response tells; whatever stands in front of the server may answer too."""
    try:
        body = response.json()
        message = body["message"] or "the server refused"
        details = body["error_data"] if isinstance(body["error_data"], dict) else {}
    except (ValueError, KeyError, TypeError):
        message, details = f"HTTP {response.status_code}: {response.text[:200]}", {}
    code = str(details.get("code", f"http_{response.status_code}"))
    hint, request_id = str(details.get("hint", "")), response.headers.get("x-request-id", "")
    return ApiError(response.status_code, code, str(message), hint, request_id)
