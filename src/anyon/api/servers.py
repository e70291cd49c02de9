"""Serving the application over HTTP, with a shutdown that ends streams first."""

import asyncio
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from anyon.api.apps import begin_shutdown

KEEP_ALIVE_SECONDS = 75
DRAIN_SECONDS = 8


class Server(uvicorn.Server):
    """A uvicorn server that tells the application first that it is about to go."""

    def __init__(self, app: FastAPI, *, host: str, port: int) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="websockets-sansio",
            ws_max_size=1024 * 1024,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End streams, then drain."""
        begin_shutdown(self._app)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take TERM and Ctrl-C as the word to shut down, and no further.

        The library's own way raises the signal again at the end, which would kill the process
        before whoever called ``serve`` has put its things in order.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # signals are the main thread's
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    @property
    def port(self) -> int:
        """The port that is listened on; asked for 0, it is the one that was free."""
        return int(self.servers[0].sockets[0].getsockname()[1])
