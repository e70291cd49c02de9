"""One HTTP client for the Engine API of Docker and Podman: deadlines and translated errors.

Over aiohttp and not aiodocker: the latter's exec stream cannot end a program's stdin without
ending its output too, and its errors do not tell a missing socket from a refused one.
"""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import aiohttp

from anyon.domain.errors import DeadlineExceededError
from anyon.engines.docker_errors import RefusedError, message_of, unreachable
from anyon.engines.docker_sockets import address

Query = Mapping[str, str] | Sequence[tuple[str, str]]

NEWEST_API = (1, 47)
"""The newest version of the API that this driver was written against."""


def api_version(newest: str, oldest: str) -> str:
    """Return the API version to speak with an engine that speaks *oldest* to *newest*."""
    ours = min(NEWEST_API, _numbers(newest))
    return ".".join(str(part) for part in max(ours, _numbers(oldest)))


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineVersion:
    """What the engine says at first sight."""

    version: str
    api: str
    is_podman: bool
    components: Mapping[str, str] = field(default_factory=dict)


def parse_version(answer: Mapping[str, Any]) -> EngineVersion:
    """Read the answer of ``/version``."""
    components = {
        str(item["Name"]): str(item["Version"])
        for item in answer.get("Components") or []
        if item.get("Name")
    }
    return EngineVersion(
        version=str(answer.get("Version", "unknown")),
        api=api_version(str(answer["ApiVersion"]), str(answer.get("MinAPIVersion") or "1.24")),
        is_podman="Podman Engine" in components,
        components=components,
    )


class DockerClient:
    """Requests to one engine. A connection is made for each: a kept one may be of a dead engine."""

    def __init__(self, at: str) -> None:
        self.address = address(at)
        self._session: aiohttp.ClientSession | None = None
        self._version: EngineVersion | None = None

    @property
    def socket_path(self) -> str | None:
        """The path of the engine's socket, None for one that is reached by network."""
        return self.address.removeprefix("unix://") if self.is_local else None

    @property
    def is_local(self) -> bool:
        """Whether the engine runs on this machine, as far as its address says."""
        return self.address.startswith("unix://")

    async def version(self) -> EngineVersion:
        """Return what the engine says of itself, asked once until it goes away."""
        if self._version is None:
            answer = await self._json("GET", "/version", {}, None, timedelta(seconds=10))
            self._version = parse_version(answer)
        return self._version

    async def path(self, path: str) -> str:
        """Return *path* below the version of the API that both sides speak."""
        return f"/v{(await self.version()).api}{path}"

    async def get(
        self, path: str, *, deadline: timedelta, query: Mapping[str, str] | None = None
    ) -> Any:
        """Return the parsed answer. Raises RefusedError as all of these do."""
        return await self._json("GET", await self.path(path), query or {}, None, deadline)

    async def post(
        self,
        path: str,
        body: object = None,
        *,
        deadline: timedelta,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """Send *body* as JSON and return the parsed answer."""
        return await self._json("POST", await self.path(path), query or {}, body, deadline)

    async def delete(
        self, path: str, *, deadline: timedelta, query: Mapping[str, str] | None = None
    ) -> None:
        """Ask for a deletion."""
        await self._json("DELETE", await self.path(path), query or {}, None, deadline)

    async def upload(
        self,
        path: str,
        data: AsyncIterable[bytes],
        *,
        deadline: timedelta,
        query: Query | None = None,
    ) -> AsyncIterator[Mapping[str, Any]]:
        """Send *data* and yield the messages (one JSON object a line) that come back."""
        where = await self.path(path)
        headers = {"Content-Type": "application/x-tar"}
        async with self._answer(
            "POST", where, query or {}, deadline, data=data, headers=headers
        ) as response:
            rest = b""
            async for piece in response.content.iter_any():
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield json.loads(line)
            if rest.strip():
                yield json.loads(rest)

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: object,
        deadline: timedelta,
    ) -> Any:
        # An empty body has no content type: newer engines refuse it otherwise.
        given = {} if body is None else {"json": body}
        async with self._answer(method, path, query, deadline, **given) as response:
            text = await response.read()
            return json.loads(text) if text.strip() else None

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        query: Query,
        deadline: timedelta,
        **given: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._opened().request(
                method,
                f"http://docker{path}" if self.is_local else self._url(path),
                params=query,
                timeout=aiohttp.ClientTimeout(total=deadline.total_seconds()),
                **given,
            ) as response:
                if response.status >= 400:
                    raise RefusedError(response.status, message_of(await response.read()))
                yield response
        except TimeoutError as error:
            raise DeadlineExceededError(
                f"the Docker engine did not answer {method} {path} in {deadline.total_seconds():g} s",
                hint="the machine may be overloaded; the same call can be repeated",
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            self._version = None  # it may come back as another version
            raise unreachable(self.address, error) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            path = self.socket_path
            connector = (
                aiohttp.TCPConnector(force_close=True)
                if path is None
                else aiohttp.UnixConnector(path=path, force_close=True)
            )
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session

    def _url(self, path: str) -> str:
        return f"http://{self.address.removeprefix('tcp://')}{path}"

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a bare connection, for a stream. Raises EngineUnavailableError."""
        try:
            if (path := self.socket_path) is not None:
                return await asyncio.open_unix_connection(path)
            host, _, port = self.address.removeprefix("tcp://").rpartition(":")
            return await asyncio.open_connection(host, int(port))
        except OSError as error:
            raise unreachable(self.address, error) from error
