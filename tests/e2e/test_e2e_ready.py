"""What systemd is told: a server is ready when its port takes connections, and never before."""

import os
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

from anyon.testing.servers import ANYON

pytestmark = pytest.mark.slow


def free_port() -> int:
    """Return a port that nobody uses just now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    """The socket that a service manager would listen on, at ``tmp_path/notify``."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    channel.bind(str(tmp_path / "notify"))
    channel.settimeout(60)
    return channel


def serve(tmp_path: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start a server that was told where its manager listens."""
    env = {"ANYON_HOME": str(tmp_path / "home"), "NOTIFY_SOCKET": str(tmp_path / "notify")}
    command = [ANYON, "serve", "--engine", "memory", "--port", str(port)]
    return subprocess.Popen(
        command, env=os.environ | env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def test_ready_means_that_the_first_call_is_answered(
    tmp_path: Path, manager: socket.socket
) -> None:
    """Whoever is started after the server may call at once, without trying again."""
    port = free_port()
    with manager, serve(tmp_path, port) as server:
        try:
            assert manager.recv(100) == b"READY=1"
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/api/health", timeout=60
            ) as answer:
                assert answer.status == 200
            server.terminate()
            assert manager.recv(100) == b"STOPPING=1"
        finally:
            server.kill()


def test_a_server_without_its_port_is_never_ready(tmp_path: Path, manager: socket.socket) -> None:
    """Another program has the port: the server ends with an error, and only says that it stops."""
    with manager, socket.create_server(("127.0.0.1", 0)) as taken:
        with serve(tmp_path, taken.getsockname()[1]) as server:
            try:
                assert server.wait(60) != 0
            finally:
                server.kill()
        manager.setblocking(False)
        assert manager.recv(100) == b"STOPPING=1"
        with pytest.raises(BlockingIOError):
            manager.recv(100)
