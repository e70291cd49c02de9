"""Connections to the ports that programs inside a container listen on, and the list of these ports.

A connection is made to the container's own loopback address, so that a server that listens there
alone (as development servers do) is reached too, and so that no address has to be right: it is the
network namespace of the container's first process that says whose port it is.
"""

import asyncio
import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from anyon.domain.errors import ConflictError, NotFoundError, UnavailableError
from anyon.domain.ids import ProjectId
from anyon.engines import sandbox_processes
from anyon.engines.docker_freezer import cgroup_paths
from anyon.engines.engine import Command, ContainerInfo, ContainerState, Engine
from anyon.engines.listeners import (
    LOOPBACKS,
    Listener,
    all_own,
    in_reach,
    open_ports,
    parse_listeners,
)
from anyon.engines.tunnels import tunnel

PROC = Path("/proc")
CONNECT_SECONDS = 10.0
_CLONE_NEWNET = 0x40000000


class Ports(Protocol):
    """The ports inside containers."""

    async def connect(self, project: ProjectId, port: int) -> socket.socket:
        """Return a connected, non-blocking socket to *port* on the loopback of the project's container.

        Never one of the host's ports or of another project's. UnavailableError ``nothing_listens``,
        ConflictError ``port_of_another`` (engines that share the host's network), ``not_running``
        or ``frozen``; NotFoundError ``container_absent``. The caller closes the socket.
        """
        ...

    async def listening(self, project: ProjectId) -> Sequence[int]:
        """Return the ports that programs of a RUNNING or FROZEN container listen on, in order.

        Nothing is woken: ConflictError ``not_running`` for a container that is stopped, ``frozen``
        where the engine cannot be looked into from outside.
        """
        ...


class ContainerPorts:
    """Implements ``Ports`` over any engine, the nearest way that the machine allows.

    With *shares_network* (bubblewrap's sandboxes use the host's) the listening socket must belong to
    a process of the container, before and after the connection was made. Else, where the
    container's first process is seen from here and we are root, a socket is made in its network
    namespace; and where not, a program that is run inside carries the bytes.
    """

    def __init__(self, engine: Engine, *, shares_network: bool) -> None:
        self._engine = engine
        self._shares = shares_network

    async def connect(self, project: ProjectId, port: int) -> socket.socket:
        """See Ports."""
        info = await self._found(project)
        if info.state is ContainerState.FROZEN:
            raise ConflictError(f"the container of project {project} is frozen", code="frozen")
        if self._shares:
            return await _connect_shared(info, port)
        namespace = _namespace(info) if os.geteuid() == 0 else None
        if namespace is None:
            return await tunnel(self._engine, project, port)
        try:
            return await _connect_inside(namespace, port)
        except PermissionError:  # root without the right to enter: a hardened service
            pass
        except OSError as error:
            raise UnavailableError(
                f"the network of the container cannot be entered: {error.strerror}",
                code="network_unreachable",
            ) from error
        finally:
            os.close(namespace)
        return await tunnel(self._engine, project, port)

    async def listening(self, project: ProjectId) -> Sequence[int]:
        """See Ports."""
        info = await self._found(project)
        if self._shares:
            own = await asyncio.to_thread(_sockets_of, info.pid)
            found = await asyncio.to_thread(_listeners, info.pid)
            return open_ports([it for it in found if it.inode in own])
        namespace = _namespace(info)
        if namespace is not None:
            os.close(namespace)
            return open_ports(await asyncio.to_thread(_listeners, info.pid))
        if info.state is ContainerState.FROZEN:
            raise ConflictError(f"the container of project {project} is frozen", code="frozen")
        return open_ports(parse_listeners(await self._table_inside(project)))

    async def _found(self, project: ProjectId) -> ContainerInfo:
        info = await self._engine.inspect(project)
        if info is None:
            raise NotFoundError("the container is gone", code="container_absent")
        if info.state is ContainerState.STOPPED:
            raise ConflictError(
                f"the container of project {project} is not running", code="not_running"
            )
        return info

    async def _table_inside(self, project: ProjectId) -> str:
        command = Command(argv=["sh", "-c", "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null"])
        stream = await self._engine.open(project, command)
        try:
            await stream.close_stdin()
            pieces = []
            while (piece := await stream.read()) is not None:
                pieces.append(piece[1])
            return b"".join(pieces).decode("ascii", "replace")
        finally:
            await stream.close()


def nothing_listens(port: int) -> UnavailableError:
    """Return the error of a port on which no program listens."""
    return UnavailableError(
        f"nothing listens on port {port} in this project",
        code="nothing_listens",
        hint="Start the server in the project (it may take a moment), then load this again.",
    )


def _namespace(info: ContainerInfo) -> int | None:
    """Return a descriptor of the container's network namespace, None where it is not to be seen.

    A pid alone proves nothing: it may be one of another machine's, or used again. So it must be in
    a cgroup that is named after the container. And ours it must not be: that would be the host.
    """
    if info.pid is None:
        return None
    place = PROC / str(info.pid)
    try:
        opened = os.open(place / "ns" / "net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # another user's, or not of this machine
        return None
    try:
        is_its_own = bool(cgroup_paths((place / "cgroup").read_text(), info.id))
        ours, theirs = (PROC / "self/ns/net").stat(), os.fstat(opened)
    except OSError:
        is_its_own = False
    if not is_its_own or (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino):
        os.close(opened)
        return None
    return opened


async def _connect_inside(namespace: int, port: int) -> socket.socket:
    """Connect by a socket that is made in the container's network namespace."""
    for loopback in LOOPBACKS:
        made = await asyncio.to_thread(_socket_in, namespace, _family(loopback))
        connected = await _connected(made, loopback, port)
        if connected is not None:
            return connected
    raise nothing_listens(port)


def _socket_in(namespace: int, family: int) -> socket.socket:
    """Make a socket in a network namespace; OSError where that may not be entered.

    It is the calling thread that enters it, for good: so it is one that ends right after.
    """
    made: list[socket.socket] = []
    failed: list[OSError] = []
    libc = ctypes.CDLL(None, use_errno=True)

    def work() -> None:
        if libc.setns(namespace, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            failed.append(OSError(number, os.strerror(number)))
            return
        try:
            made.append(socket.socket(family, socket.SOCK_STREAM))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="network namespace")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


async def _connect_shared(info: ContainerInfo, port: int) -> socket.socket:
    """Connect to a port of the network that is shared with the host, if it is the container's own."""
    taken = False
    for loopback in LOOPBACKS:
        before, is_own = await asyncio.to_thread(_owned, info.pid, loopback, port)
        taken = taken or bool(before)
        if not is_own:
            continue
        connected = await _connected(
            socket.socket(_family(loopback), socket.SOCK_STREAM), loopback, port
        )
        if connected is None:
            continue
        # Whoever listened before and listens now, on the very same sockets, took the connection.
        after, is_own = await asyncio.to_thread(_owned, info.pid, loopback, port)
        if is_own and after == before:
            return connected
        connected.close()
    if taken:
        raise ConflictError(
            f"port {port} of this machine belongs to another program",
            code="port_of_another",
            hint="On this engine projects share the machine's ports: let the server take another.",
        )
    raise nothing_listens(port)


def _owned(pid: int | None, loopback: str, port: int) -> tuple[Sequence[Listener], bool]:
    found = in_reach(_listeners(pid), loopback, port)
    return found, bool(found) and all_own(found, _sockets_of(pid))


def _listeners(pid: int | None) -> Sequence[Listener]:
    found: list[Listener] = []
    if pid is None:
        return found
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):  # ended, or a kernel without version 6
            found += parse_listeners((PROC / str(pid) / "net" / name).read_text())
    return found


def _sockets_of(pid: int | None) -> frozenset[int]:
    """Return the inodes of the sockets that are open in the sandbox whose first process is *pid*."""
    first = None if pid is None else sandbox_processes.identify(pid)
    if first is None:
        return frozenset()
    found = set()
    for member in sandbox_processes.members(first):
        with contextlib.suppress(OSError):  # it ended while we looked
            for entry in os.scandir(PROC / str(member.pid) / "fd"):
                with contextlib.suppress(OSError):
                    target = str(Path(entry.path).readlink())
                    if target.startswith("socket:["):
                        found.add(int(target[8:-1]))
    return frozenset(found)


def _family(loopback: str) -> int:
    return socket.AF_INET6 if ":" in loopback else socket.AF_INET


async def _connected(made: socket.socket, loopback: str, port: int) -> socket.socket | None:
    """Return the socket once it is connected, or None when nobody listens; closed then."""
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(made, (loopback, port))
    except (OSError, TimeoutError):  # refused; or no such family in there
        made.close()
        return None
    except BaseException:
        made.close()
        raise
    return made
