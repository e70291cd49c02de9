"""Serving the application over HTTP, with a shutdown that ends streams first."""

import socket

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

    @property
    def port(self) -> int:
        """The port that is listened on; asked for 0, it is the one that was free."""
        return int(self.servers[0].sockets[0].getsockname()[1])
