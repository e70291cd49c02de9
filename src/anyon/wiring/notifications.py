"""Telling systemd that the server is ready, and that it still turns (sd_notify's protocol)."""

import os
import socket
from collections.abc import Mapping
from datetime import timedelta

from anyon.lifecycle.loops import Loop


def notify(words: str, environment: Mapping[str, str] | None = None) -> bool:
    """Send *words* to the service manager; False where none has asked for them.

    A manager that cannot be reached is as none: it will do what it does with a silent service.
    """
    address = (os.environ if environment is None else environment).get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(words.encode(), address)
    except OSError:
        return False
    return True


def watchdog(environment: Mapping[str, str] | None = None) -> Loop | None:
    """Return the loop that keeps systemd's watchdog quiet, three times as often as need be.

    None where the manager has set none, or one for another process.
    """
    env = os.environ if environment is None else environment
    length, pid = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", str(os.getpid()))
    if not length.isdecimal() or not int(length) or pid != str(os.getpid()):
        return None

    async def tick() -> None:
        notify("WATCHDOG=1", env)

    return Loop(name="watchdog", interval=timedelta(microseconds=int(length) / 3), tick=tick)
