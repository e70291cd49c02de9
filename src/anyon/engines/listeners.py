"""What the kernel's tables say of TCP: which ports are listened on, and by which sockets; pure.

The source is ``/proc/<pid>/net/tcp`` and ``tcp6``, which show the network namespace of a process.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

LISTEN = "0A"
"""The state of a socket that takes connections (``TCP_LISTEN``)."""
_ANY_4, _LOOP_4 = "00000000", "0100007F"
_ANY_6, _LOOP_6 = "0" * 32, "0" * 24 + "01000000"
_IN_REACH = {
    "127.0.0.1": frozenset({_ANY_4, _LOOP_4, _ANY_6}),
    "::1": frozenset({_ANY_6, _LOOP_6}),
}
"""Which local addresses may take a connection to the loopback address: the kernel's own form of them."""
LOOPBACKS: Sequence[str] = tuple(_IN_REACH)
"""The loopback addresses, in the order in which they are tried."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket: its local address (the kernel's hexadecimal form), port and inode."""

    address: str
    port: int
    inode: int


def parse_listeners(text: str) -> Sequence[Listener]:
    """Return the listening sockets in the text of a table."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == LISTEN:
            address, _, port = fields[1].rpartition(":")
            found.append(Listener(address, int(port, 16), int(fields[9])))
    return found


def in_reach(listeners: Sequence[Listener], loopback: str, port: int) -> Sequence[Listener]:
    """Return the sockets of which one would take a connection to *port* of a loopback address."""
    addresses = _IN_REACH[loopback]
    return [it for it in listeners if it.port == port and it.address in addresses]


def open_ports(listeners: Sequence[Listener]) -> Sequence[int]:
    """Return the ports that can be reached on a loopback address, in order."""
    ports = {it.port for it in listeners}
    return sorted(p for p in ports if any(in_reach(listeners, at, p) for at in LOOPBACKS))


def all_own(found: Sequence[Listener], own: Collection[int]) -> bool:
    """Say whether there is a socket, and every one has an inode among *own*.

    One that is another's is enough for a no: which of them the kernel would take is not for us to guess.
    """
    return bool(found) and all(it.inode in own for it in found)
