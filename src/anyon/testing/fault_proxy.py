"""An HTTP proxy that misbehaves on demand, between a store's driver and its service."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

FAULTS = (
    "reset_before",
    "reset_after",
    "hang_before",
    "hang_after",
    "status_429",
    "status_500",
    "status_503",
    "cut_answer",
    "corrupt_answer",
    "corrupt_request",
    "garbage_answer",
    "slow_answer",
    "empty_list",
)
"""What can go wrong with one request: before it arrives, on its way, or with its answer."""

_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class FaultProxy:
    """Forwards to *target*; *choose* says what happens to each request (None: nothing).

    ``choose(number, method, path)``: *number* counts the requests from 1.
    """

    def __init__(self, target: str, url: str, hang: threading.Event) -> None:
        self.target = target
        self.url = url
        self.choose: Callable[[int, str, str], str | None] = lambda _number, _method, _path: None
        self.requests = 0
        self.done: list[str] = []
        """The faults that were done."""
        self.hang = hang
        self.lock = threading.Lock()

    def next(self, method: str, path: str) -> str | None:
        """Return what is to happen to the request that has just come."""
        with self.lock:
            self.requests += 1
            fault = self.choose(self.requests, method, path)
            if fault is not None:
                self.done.append(fault)
            return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body leave together, at once: else each answer waits for a delayed ACK.
    wbufsize = -1
    disable_nagle_algorithm = True
    proxy: ClassVar[FaultProxy]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.next(self.command, self.path)
        if fault == "hang_before":
            self.proxy.hang.wait(30)
        if fault in {"reset_before", "hang_before"}:
            self.close_connection = True
            return
        if fault is not None and fault.startswith("status_"):
            self._answer(int(fault[7:]), [], b"{}")
            return
        if fault == "corrupt_request" and body:
            at = len(body) // 2
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        status, headers, answer = self._forward(body)
        if fault == "hang_after":
            self.proxy.hang.wait(30)
        if fault in {"reset_after", "hang_after"}:
            self.close_connection = True
            return
        self._spoilt(fault, status, headers, answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _handle  # noqa: N815 - the base's names

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        place = urlsplit(self.proxy.target)
        onward = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
            onward.request(self.command, self.path, body or None, headers)
            response = onward.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            onward.close()

    def _spoilt(
        self, fault: str | None, status: int, headers: list[tuple[str, str]], answer: bytes
    ) -> None:
        length = len(answer)
        if fault == "cut_answer":
            answer = answer[: length // 2]
        elif fault == "corrupt_answer" and answer:
            at = length // 2
            answer = answer[:at] + bytes([answer[at] ^ 1]) + answer[at + 1 :]
        elif fault == "garbage_answer":
            status, headers, answer = 200, [], b"<html>a captive portal</html>"
            length = len(answer)
        elif fault == "empty_list" and b'"items"' in answer:
            answer = b'{"kind":"storage#objects"}'
            length = len(answer)
        self._answer(status, headers, answer, length=length, slow=fault == "slow_answer")

    def _answer(
        self,
        status: int,
        headers: list[tuple[str, str]],
        answer: bytes,
        *,
        length: int | None = None,
        slow: bool = False,
    ) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _HOP:
                # A resumable upload goes on at the address it was given: through here too.
                self.send_header(name, value.replace(self.proxy.target, self.proxy.url))
        self.send_header("Content-Length", self._told_length(headers, answer, length))
        self.end_headers()
        if slow:
            for at in range(min(len(answer), 40)):
                self.wfile.write(answer[at : at + 1])
                self.wfile.flush()
                self.proxy.hang.wait(0.01)
            answer = answer[40:]
        if self.command != "HEAD":
            self.wfile.write(answer)
        self.wfile.flush()
        self.close_connection = length is not None and length != len(answer)

    def _told_length(
        self, headers: list[tuple[str, str]], answer: bytes, length: int | None
    ) -> str:
        """Return how long the body is said to be: of a HEAD's answer, which has none, as the service said."""
        if self.command == "HEAD":
            told = [value for name, value in headers if name.lower() == "content-length"]
            return told[0] if told else "0"
        return str(length if length is not None else len(answer))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: broken connections are this server's trade."""


@contextmanager
def fault_proxy(target: str) -> Iterator[FaultProxy]:
    """Run a proxy in front of *target* (an http URL) and yield it."""
    server = _Server(("127.0.0.1", 0), _Handler)
    hang = threading.Event()
    proxy = FaultProxy(target, f"http://127.0.0.1:{server.server_port}", hang)
    server.RequestHandlerClass = type("_Bound", (_Handler,), {"proxy": proxy})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        hang.set()
        server.shutdown()
        server.server_close()
        thread.join()
