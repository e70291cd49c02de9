"""Serving the application over HTTP, with a shutdown that ends streams first."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState

from anyon.api.apps import begin_shutdown

KEEP_ALIVE_SECONDS = 75
DRAIN_SECONDS = 8


class WebSocketConnection(WebSocketsSansIOProtocol):
    """The library's WebSocket, which may also be closing of itself when the server goes."""

    def shutdown(self) -> None:
        """Close with 1012; one that is closing already has said why, and is let finish.

        The library raises then, which would break off the whole server's shutdown.
        """
        try:
            super().shutdown()
        except InvalidState:
            self.transport.close()  # after what is still to be sent


class Server(uvicorn.Server):
    """A uvicorn server that tells the application first that it is about to go.

    *on_listening* is called once the port takes connections, never if it cannot be had.
    """

    def __init__(
        self,
        app: FastAPI,
        *,
        host: str,
        port: int,
        on_listening: Callable[[], object] = lambda: None,
    ) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,  # it would have to be renewed each second, also when nobody asks
            ws=WebSocketConnection,
            ws_max_size=1024 * 1024,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        self._leaving = asyncio.Event()
        self._on_listening = on_listening
        super().__init__(config)
        self._app = app

    @property
    def should_exit(self) -> bool:
        """Whether it was told to stop; setting it tells it so."""
        return self._leaving.is_set()

    @should_exit.setter
    def should_exit(self, told: bool) -> None:
        if told:
            self._leaving.set()

    async def main_loop(self) -> None:
        """Wait to be told to stop. The library's own loop looks ten times a second."""
        self._on_listening()
        await self._leaving.wait()

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
