"""A connection to a port inside a container through a program that is run there.

For engines on other machines, and for servers that may not enter a container's network: slower by
one exec of the engine, and the image needs ``python3`` or ``perl``.
"""

import asyncio
import contextlib
import socket

from anyon.domain.errors import AnyonError, MissingError, UnavailableError
from anyon.domain.ids import ProjectId
from anyon.engines.engine import Channel, Command, Engine, Stream

OPEN_SECONDS = 15.0
_PIECE = 64 * 1024
_PYTHON = """\
import os,select,socket,sys
for a in ("127.0.0.1","::1"):
    try: s=socket.create_connection((a,int(sys.argv[1])),10); break
    except OSError: s=None
if s is None: os.write(1,b"-"); sys.exit()
s.settimeout(None); os.write(1,b"+"); r=[0,s]
while s in r:
    for f in select.select(r,[],[])[0]:
        d=os.read(0,65536) if f==0 else s.recv(65536)
        if f==0:
            if d: s.sendall(d)
            else: r.remove(0); s.shutdown(1)
        elif d:
            while d: d=d[os.write(1,d):]
        else: r.remove(s)
"""
_PERL = """\
use IO::Socket::INET; $p=shift;
$s=IO::Socket::INET->new(PeerAddr=>"127.0.0.1",PeerPort=>$p,Timeout=>10);
$s||=eval{require IO::Socket::IP;IO::Socket::IP->new(PeerHost=>"::1",PeerPort=>$p,Timeout=>10)};
if(!$s){syswrite STDOUT,"-";exit}
sub all{my($f,$d)=@_;while(length $d){my $n=syswrite $f,$d;exit unless defined $n;substr($d,0,$n)=""}}
syswrite STDOUT,"+";$in=1;
while(1){my $r="";vec($r,0,1)=1 if $in;vec($r,fileno $s,1)=1;select($r,undef,undef,undef);
if($in&&vec($r,0,1)){if(sysread STDIN,my $d,65536){all($s,$d)}else{$in=0;shutdown $s,1}}
if(vec($r,fileno $s,1)){if(sysread $s,my $d,65536){all(*STDOUT,$d)}else{exit}}}
"""
_SCRIPT = """\
if command -v python3 >/dev/null; then exec python3 -c "$2" "$1"; fi
if command -v perl >/dev/null; then exec perl -e "$3" "$1"; fi
printf '?'
"""


async def tunnel(engine: Engine, project: ProjectId, port: int) -> socket.socket:
    """Return a connected socket to *port* inside. Errors as ``Ports.connect``, and ``tunnel_missing``."""
    argv = ["sh", "-c", _SCRIPT, "anyon", str(port), _PYTHON, _PERL]
    stream = await engine.open(project, Command(argv=argv))
    try:
        async with asyncio.timeout(OPEN_SECONDS):
            first = await _first(stream)
    except TimeoutError:
        await stream.close()
        raise UnavailableError(f"port {port} does not answer", code="nothing_listens") from None
    except BaseException:
        await stream.close()
        raise
    if not first.startswith(b"+"):
        await stream.close()
        raise _why_not(first, port)
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    carrying = asyncio.create_task(_carry(stream, theirs, first[1:]), name=f"tunnel to {port}")
    _CARRIED.add(carrying)  # it ends when either side does
    carrying.add_done_callback(_CARRIED.discard)
    return ours


_CARRIED: set[asyncio.Task[None]] = set()
"""Tunnels that are open: a task that nobody knows may be collected."""


async def _first(stream: Stream) -> bytes:
    while (piece := await stream.read()) is not None:
        if piece[0] is Channel.STDOUT:
            return piece[1]
    return b""


def _why_not(said: bytes, port: int) -> AnyonError:
    if said.startswith(b"?"):
        return MissingError(
            "the project's image has neither python3 nor perl, one of which carries previews here",
            code="tunnel_missing",
            hint="Take an image that has one, or let the server run as root beside its engine.",
        )
    return UnavailableError(
        f"nothing listens on port {port} in this project",
        code="nothing_listens",
        hint="Start the server in the project (it may take a moment), then load this again.",
    )


async def _carry(stream: Stream, end: socket.socket, rest: bytes) -> None:
    loop = asyncio.get_running_loop()

    async def inwards() -> None:
        while data := await loop.sock_recv(end, _PIECE):
            await stream.write(data)
        await stream.close_stdin()

    async def outwards() -> None:
        if rest:
            await loop.sock_sendall(end, rest)
        while (piece := await stream.read()) is not None:
            if piece[0] is Channel.STDOUT:
                await loop.sock_sendall(end, piece[1])
        end.shutdown(socket.SHUT_WR)

    writing = asyncio.create_task(inwards())
    try:
        with contextlib.suppress(
            OSError, AnyonError
        ):  # either side went: the other learns it below
            await outwards()
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        end.close()
        await stream.close()
