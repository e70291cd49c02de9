"""Running the server until it is told to stop."""

import asyncio
import signal
from functools import partial

import structlog

from anyon import failpoints
from anyon.api.servers import Server
from anyon.config import Settings
from anyon.domain.errors import UnavailableError
from anyon.lifecycle import loops
from anyon.telemetry import KEPT_LOG, configure_logging
from anyon.wiring import allocators, notifications
from anyon.wiring.assembly import Anyon, assembled
from anyon.wiring.pidfile import only_server

log = structlog.get_logger(__name__)


async def serve(settings: Settings) -> None:
    """Serve until TERM or Ctrl-C; containers and their processes go on after it.

    Raises ConflictError (``home_in_use``), InvalidInputError (``unknown_failpoint``), UnavailableError (``address_unusable``), or what the
    engine or the database say.
    """
    failpoints.arm(settings.failpoint)
    allocators.limit_arenas()
    hear_ignored_signals()
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    configure_logging(
        settings.log_level,
        settings.log_format,
        kept_in=settings.home / KEPT_LOG if settings.log_kept else None,
        kept_bytes=settings.log_kept,
    )
    with only_server(settings.home, address=f"{settings.host}:{settings.port}"):
        async with assembled(settings) as anyon:
            allocators.collect_and_spare()
            await _serve(anyon)


def hear_ignored_signals() -> None:
    """Let the server itself go on ignoring what it was started to ignore (``nohup``), and nothing that it starts.

    An ignored signal stays ignored in every program started from here, and a shell cannot undo
    that; a handler ends with the start of another program. Only for the main thread.
    """
    # Python ignores these two by itself, and gives them back to what it starts.
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)


async def _serve(anyon: Anyon) -> None:
    settings = anyon.settings
    server = Server(
        anyon.app,
        host=settings.host,
        port=settings.port,
        # What systemd starts after us connects at once.
        on_listening=partial(notifications.notify, "READY=1"),
    )
    dog = notifications.watchdog()
    found = [*anyon.loops, allocators.loop(), *([dog] if dog else [])]
    background = asyncio.create_task(loops.run(found, anyon.clock), name="loops")
    log.info(
        "server.starting", address=f"{settings.host}:{settings.port}", engine=anyon.engine.name
    )
    try:
        await server.serve()
    except SystemExit:  # uvicorn's word for an address that it cannot have
        raise UnavailableError(
            f"cannot listen on {settings.host}:{settings.port}",
            code="address_unusable",
            hint="another program may use it: set ANYON_PORT, or 0 for a free one",
        ) from None
    finally:
        notifications.notify("STOPPING=1")
        background.cancel()
        await asyncio.gather(background, return_exceptions=True)
    log.info("server.stopped")
