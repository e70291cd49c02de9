"""A terminal in a project's container: bytes both ways over one WebSocket.

Binary frames carry the terminal's bytes. Text frames are JSON: ``{"resize": {"columns": 80,
"rows": 24}}`` to the server and ``{"exit": 0}`` from it at the end.
"""

import json

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from anyon.sdk.errors import UnreachableError


class Terminal:
    """An open terminal."""

    def __init__(self, websocket: ClientConnection) -> None:
        self._websocket = websocket
        self.exit_code: int | None = None

    async def read(self) -> bytes | None:
        """Return the next bytes, or None at the end, when ``exit_code`` is set.

        UnreachableError when the connection breaks before it.
        """
        while self.exit_code is None:
            try:
                frame = await self._websocket.recv()
            except ConnectionClosed as error:
                reason = f"the terminal was cut off ({error})"
                raise UnreachableError("the server", reason) from error
            if isinstance(frame, bytes):
                return frame
            self.exit_code = int(json.loads(frame).get("exit", 0))
        return None

    async def write(self, data: bytes) -> None:
        """Type *data*; nothing happens once the terminal is over."""
        try:
            await self._websocket.send(data)
        except ConnectionClosed:
            return  # read() is the one that tells how it ended

    async def resize(self, columns: int, rows: int) -> None:
        """Tell the terminal's new size."""
        size = json.dumps({"resize": {"columns": columns, "rows": rows}})
        try:
            await self._websocket.send(size)
        except ConnectionClosed:
            return  # as above
