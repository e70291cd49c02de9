"""A server for tests of previews, of the standard library alone: it says what it was asked.

It runs inside a project, as ``python3 preview_server.py PORT [ADDRESS]``.
"""

import base64
import hashlib
import json
import socketserver
import struct
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENDED = []


class Handler(BaseHTTPRequestHandler):
    """Answers every method."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Say nothing."""

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            length = 0
            while size := int(self.rfile.readline(), 16):
                length += len(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return length
        return len(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _json(self, found, status=200, more=()):
        data = json.dumps(found).encode()
        self.send_response(status)
        for key, value in (("Content-Type", "application/json"), *more):
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def answer(self):
        """Answer one request."""
        path = self.path.partition("?")[0]
        special = getattr(self, "at_" + path.strip("/"), None)
        if special is not None:
            special()
            return
        # As it came: the library shortens a path that begins with two slashes.
        target = self.requestline.split()[1]
        found = {"method": self.command, "target": target, "headers": self.headers.items()}
        self._json({**found, "length": self._body()})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_PROPFIND = answer  # noqa: N815 - the library's names

    def do_HEAD(self):
        """Answer without a body."""
        self.send_response(200)
        self.send_header("Content-Length", str(32 * 1024 * 1024))
        self.end_headers()

    def at_cookies(self):
        """Set cookies that reach too far, and go elsewhere."""
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/next?a=1")
        self.send_header("Set-Cookie", "a=1; Domain=preview.localhost; Path=/")
        self.send_header("Set-Cookie", "b=2")
        self.send_header("Set-Cookie", "anyon-preview=stolen; Path=/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def at_big(self):
        """Send 32 MB, without a length."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        piece = bytes(1024 * 1024)
        for _ in range(32):
            self.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def at_events(self):
        """Push events until the client has gone."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        try:
            for number in range(10_000):
                self.wfile.write(f"data: {number}\n\n".encode())
                self.wfile.flush()
                time.sleep(0.05)
        except OSError:
            ENDED.append(1)

    def at_ended(self):
        """Say whether a reader of events has gone."""
        self._json({"ended": len(ENDED)})

    def at_garbage(self):
        """Answer with something that is no HTTP."""
        self.wfile.write(b"SSH-2.0-nothing\r\n\r\n")
        self.close_connection = True

    def at_short(self):
        """Break off in the middle."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 10)
        self.close_connection = True

    def at_ws(self):
        """Speak WebSocket: send back what comes, in the first subprotocol that was offered."""
        magic = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(magic.encode()).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        offered = self.headers.get("Sec-WebSocket-Protocol", "")
        if offered:
            self.send_header("Sec-WebSocket-Protocol", offered.split(",")[0].strip())
        self.end_headers()
        self.close_connection = True
        while self._frame():
            pass

    def _frame(self):
        head = self.rfile.read(2)
        if len(head) < 2:
            return False
        code, length = head[0] & 15, head[1] & 127
        if length == 126:
            (length,) = struct.unpack(">H", self.rfile.read(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self.rfile.read(8))
        mask = self.rfile.read(4)
        data = self.rfile.read(length)
        plain = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
        if code == 9:
            self._send(10, plain)
        elif code == 8:
            self._send(8, plain)
            return False
        elif plain == b"close":
            self._send(8, struct.pack(">H", 4001) + b"bye")
            return False
        elif plain == b"push":
            for _ in range(600):
                self._send(1, b"pushed")
                time.sleep(0.1)
        elif code in {1, 2}:
            self._send(code, plain)
        return True

    def _send(self, code, data):
        length = len(data)
        if length < 126:
            size = bytes([length])
        elif length < 65536:
            size = bytes([126]) + struct.pack(">H", length)
        else:
            size = bytes([127]) + struct.pack(">Q", length)
        self.wfile.write(bytes([128 | code]) + size + data)
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    """One that a restart finds its port free for."""

    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, *_):
        """A client that goes is no news."""

    def server_bind(self):
        """Bind without asking for a name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]


if __name__ == "__main__":
    at = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
    Server((at, int(sys.argv[1])), Handler).serve_forever()
