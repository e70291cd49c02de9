"""Previews: a server that runs in a project, shown to who may see the project.

A link holds a ticket that is good once and for a minute; it is exchanged for a session, which is
for one port of one project and one user. A session is a signed text, so that it outlives a restart
of the server; tickets do not.
"""

import asyncio
import hashlib
import hmac
import os
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from anyon.clock import Clock
from anyon.db import projects as project_rows
from anyon.db import tokens as token_rows
from anyon.db.databases import Database
from anyon.domain.actors import Actor
from anyon.domain.entities import Lease, Project
from anyon.domain.errors import (
    AnyonError,
    ConflictError,
    InvalidInputError,
    MissingError,
    NotFoundError,
    OverLimitError,
    UnavailableError,
)
from anyon.domain.ids import ProjectId, TokenId, UserId
from anyon.domain.states import Phase
from anyon.engines.ports import Ports
from anyon.services.containers import Containers
from anyon.services.parts import Parts
from anyon.services.supervisors import Supervisor
from anyon.services.traffic import Traffic

PORTS = range(1024, 65536)
"""Ports that can be shown; below are those of a machine's own services."""
TICKET_LIFE = timedelta(seconds=60)
SESSION_LIFE = timedelta(hours=12)
WAKE_PATIENCE = timedelta(seconds=60)
MOST_CONNECTIONS = 256
"""Connections to one project at once, open pages' WebSockets included."""
_AWAKE = frozenset({Phase.RUNNING, Phase.FROZEN})
_LOST = frozenset({"not_running", "frozen", "container_absent"})


@dataclass(frozen=True, slots=True)
class _Pass:
    """Who may see which port, until when; ``token`` is empty where no login was asked."""

    project: str
    port: int
    user: str
    token: str
    expires: int

    def text(self) -> str:
        return f"{self.project}.{self.port}.{self.user}.{self.token}.{self.expires}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One connection to a server inside, and what it tells of its traffic."""

    socket: socket.socket
    traffic: Traffic

    def saw(self) -> None:
        """Say that something was carried that is traffic."""
        self.traffic.saw()

    async def speak(self) -> None:
        """Say that the client said something: also wakes a project that was frozen meanwhile."""
        await self.traffic.need()
        self.traffic.saw()


class Previews:
    """Gives links, keeps sessions, and connects visitors. *key* signs the sessions.

    *ports* None shows nothing (MissingError ``previews_off``).
    """

    def __init__(
        self,
        *,
        db: Database,
        containers: Containers,
        ports: Ports | None,
        clock: Clock,
        supervisor: Supervisor,
        key: bytes,
        awake_for: timedelta,
    ) -> None:
        self._db = db
        self._containers = containers
        self._ports = ports
        self._clock = clock
        self._supervisor = supervisor
        self._key = key
        self._awake_for = awake_for
        self._tickets: dict[str, tuple[_Pass, float]] = {}
        self._traffic: dict[tuple[ProjectId, int], Traffic] = {}

    async def ticket(self, actor: Actor, project_id: ProjectId, port: int) -> tuple[str, datetime]:
        """Return a new ticket for a port, and when it is worthless; wakes nothing.

        NotFoundError ``project_unknown``, InvalidInputError ``bad_port``.
        """
        if port not in PORTS:
            raise InvalidInputError(
                f"ports from {PORTS[0]} to {PORTS[-1]} can be shown", code="bad_port"
            )
        await self._found(actor.user_id, project_id)
        now = self._clock.monotonic()
        self._tickets = {key: it for key, it in self._tickets.items() if it[1] > now}
        secret = secrets.token_urlsafe(32)
        until = self._clock.now() + SESSION_LIFE
        given = _Pass(project_id, port, actor.user_id, actor.token_id or "", int(until.timestamp()))
        self._tickets[_sha256(secret)] = (given, now + TICKET_LIFE.total_seconds())
        return secret, self._clock.now() + TICKET_LIFE

    def enter(self, secret: str, project_id: ProjectId, port: int) -> str | None:
        """Exchange a ticket for a session, once; None for one that is no good for this port."""
        given, until = self._tickets.pop(_sha256(secret), (None, 0.0))
        if given is None or until <= self._clock.monotonic():
            return None
        if (given.project, given.port) != (project_id, port):
            return None
        return f"{given.text()}.{self._signature(given)}"

    async def admitted(
        self, sessions: Sequence[str], project_id: ProjectId, port: int
    ) -> Project | None:
        """Return the project if one of the sessions is good for the port now; None otherwise.

        It is looked up each time whether the user still may: a token that was revoked, or a project
        that is no longer theirs, ends the session. Nothing is woken.
        """
        for session in sessions:
            given = self._read(session)
            if given is None or (given.project, given.port) != (project_id, port):
                continue
            if given.expires <= self._clock.now().timestamp():
                continue
            if given.token and not await self._is_good(UserId(given.user), TokenId(given.token)):
                continue
            try:
                return await self._found(UserId(given.user), project_id)
            except NotFoundError:
                continue
        return None

    async def listening(self, actor: Actor, project_id: ProjectId) -> Sequence[int] | None:
        """Return the ports that are listened on, None while the project sleeps; wakes nothing."""
        project = await self._found(actor.user_id, project_id)
        ports = self._offered()
        try:
            return [it for it in await ports.listening(project.id) if it in PORTS]
        except (ConflictError, NotFoundError):  # stopped, absent, or frozen and not to be seen
            return None

    @asynccontextmanager
    async def visit(self, project: Project, port: int, *, may_start: bool) -> AsyncIterator[Visit]:
        """Connect to *port* of a project, waking it first, and hold it awake by what is carried.

        With *may_start* false it is thawed at most, never started: for what an open page does by
        itself. UnavailableError: ``nothing_listens``, ``preview_asleep``, ``preview_waking``;
        OverLimitError: ``preview_busy``, ``wake_budget``, ``no_capacity``.
        """
        ports = self._offered()
        key = (project.id, port)
        traffic = self._traffic.get(key)
        if traffic is None:
            traffic = self._traffic[key] = self._new_traffic(project, port)
        mine = [it for (of, _), it in self._traffic.items() if of == project.id]
        if sum(it.inside for it in mine) >= MOST_CONNECTIONS:
            raise OverLimitError(
                f"the project has {MOST_CONNECTIONS} connections open",
                code="preview_busy",
                hint="Close pages that are not needed.",
            )
        try:
            async with traffic.within():
                made = await self._connected(ports, traffic, project, port, may_start=may_start)
                try:
                    traffic.saw()
                    yield Visit(socket=made, traffic=traffic)
                finally:
                    made.close()
        finally:
            if not traffic.inside and not traffic.is_held:
                self._traffic.pop(key, None)

    async def close(self) -> None:
        """Hold nothing awake any more; pages that are open are closed by the server."""
        for traffic in tuple(self._traffic.values()):
            await traffic.let_go()

    async def _connected(
        self, ports: Ports, traffic: Traffic, project: Project, port: int, *, may_start: bool
    ) -> socket.socket:
        for is_last in (False, True):
            await self._woken(traffic, project, may_start=may_start)
            try:
                return await ports.connect(project.id, port)
            except AnyonError as error:
                # Stopped behind the lease that is held: that one is worth nothing any more.
                if is_last or error.code not in _LOST:
                    raise
                await traffic.let_go()
                project = await self._found(project.user_id, project.id)
        raise AssertionError("the loop returns or raises")

    async def _woken(self, traffic: Traffic, project: Project, *, may_start: bool) -> None:
        if traffic.is_held:
            return
        if not may_start and project.phase not in _AWAKE:
            raise UnavailableError(
                "the project sleeps, and what an open page does by itself does not wake it",
                code="preview_asleep",
                hint="Load the page again.",
            )
        try:
            async with asyncio.timeout(WAKE_PATIENCE.total_seconds()):
                await traffic.need()
        except TimeoutError:
            raise UnavailableError(
                "the project is being woken and takes its time",
                code="preview_waking",
                hint="Load this again in a moment.",
            ) from None

    def _new_traffic(self, project: Project, port: int) -> Traffic:
        @asynccontextmanager
        async def new_hold() -> AsyncIterator[Lease]:
            # As it is recorded now: the phase may be another one than at the first request.
            now = await self._found(project.user_id, project.id)
            holder = f"preview of port {port}"
            async with self._containers.awake(now, holder=holder, reason="preview") as lease:
                yield lease

        return Traffic(
            new_hold=new_hold,
            clock=self._clock,
            supervisor=self._supervisor,
            awake_for=self._awake_for,
            name=f"preview {project.id} {port}",
        )

    async def _found(self, user: UserId, project_id: ProjectId) -> Project:
        project = await self._db.read(project_rows.get, user, project_id)
        if project is None:
            raise NotFoundError("there is no such project", code="project_unknown")
        return project

    async def _is_good(self, user: UserId, token: TokenId) -> bool:
        found = {it.id: it for it in await self._db.read(token_rows.of_user, user)}.get(token)
        return found is not None and (
            found.expires_at is None or found.expires_at > self._clock.now()
        )

    def _read(self, session: str) -> _Pass | None:
        """Return what a session says if we have signed it."""
        fields = session.split(".")
        if len(session) > 400 or len(fields) != 6 or not session.isascii():
            return None
        project, port, user, token, expires, signature = fields
        if not (port.isdigit() and expires.isdigit()):
            return None
        given = _Pass(project, int(port), user, token, int(expires))
        return given if hmac.compare_digest(self._signature(given), signature) else None

    def _signature(self, given: _Pass) -> str:
        return hmac.new(self._key, f"preview {given.text()}".encode(), hashlib.sha256).hexdigest()

    def _offered(self) -> Ports:
        if self._ports is None:
            raise MissingError("this engine shows no ports", code="previews_off")
        return self._ports


def signing_key(home: Path) -> bytes:
    """Return the key of this home that signs sessions: random, made once, readable by its owner alone."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = home / "preview-key"
    try:
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(made, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
    key = path.read_bytes()
    if len(key) < 32:
        raise UnavailableError(
            f"{path} is not whole", code="bad_preview_key", hint="Remove it; another will be made."
        )
    return key


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def previewed(parts: Parts, containers: Containers, supervisor: Supervisor) -> Previews:
    """Return the previews of a server's projects."""
    return Previews(
        db=parts.db,
        containers=containers,
        ports=parts.ports,
        clock=parts.clock,
        supervisor=supervisor,
        key=signing_key(parts.home),
        awake_for=parts.preview_awake,
    )
