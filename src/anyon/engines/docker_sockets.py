"""Where a Docker or Podman socket may be, best first."""

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from anyon.domain.errors import InvalidInputError

DEFAULT = "/var/run/docker.sock"


def candidates(environment: Mapping[str, str], *, uid: int, home: str) -> Sequence[str]:
    """Return the addresses worth trying: what ``DOCKER_HOST`` names alone, else the usual places.

    A user's own engine comes after the machine's: a rootless one is taken only where no other is.
    """
    named = environment.get("DOCKER_HOST", "").strip()
    if named:
        return [address(named)]
    runtime = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    paths = [
        DEFAULT,
        f"{runtime}/docker.sock",
        f"{home}/.docker/run/docker.sock",
        "/run/podman/podman.sock",
        f"{runtime}/podman/podman.sock",
    ]
    return [f"unix://{path}" for path in paths]


def address(text: str) -> str:
    """Return *text* as ``unix:///path`` or ``tcp://host:port``; a bare path is a socket's.

    Raises InvalidInputError (code ``bad_socket``) for any other form.
    """
    if text.startswith("/"):
        return f"unix://{text}"
    if text.startswith(("unix:///", "tcp://")):
        return text
    raise InvalidInputError(
        f"{text!r} is not an address of a Docker engine that Anyon can use",
        code="bad_socket",
        hint="use unix:///path/to/docker.sock or tcp://host:port (an ssh or TLS tunnel ends in one)",
    )


def find(environment: Mapping[str, str] | None = None) -> str | None:
    """Return the first address at which something listens, or None.

    A name in ``DOCKER_HOST`` is returned as it is: who names an engine wants that one or an error.
    """
    env = os.environ if environment is None else environment
    found = candidates(env, uid=os.getuid(), home=env.get("HOME", "/root"))
    if env.get("DOCKER_HOST", "").strip():
        return found[0]
    return next((item for item in found if listens(Path(item.removeprefix("unix://")))), None)


def listens(path: Path) -> bool:
    """Say whether somebody accepts connections at the socket *path*."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
