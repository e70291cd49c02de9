"""An S3 of one's own: moto's server, one request at a time.

moto checks a condition and writes in two steps, so that of racing writers several could win;
in a server of one thread each request has the store for itself, as S3 promises it.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

DEADLINE_SECONDS = 60
_PROGRAM = """
import sys
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
run_simple("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)
"""


def is_installed() -> bool:
    """Say whether moto's server can be started here."""
    return find_spec("moto") is not None and find_spec("flask") is not None


@contextmanager
def s3_emulator() -> Iterator[str]:
    """Run an empty S3 and yield its URL; it ends with the context."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | credentials(url),
    )
    try:
        _wait(url, process)
        yield url
    finally:
        process.kill()
        process.wait()


def credentials(url: str) -> Mapping[str, str]:
    """Return the environment in which S3's clients talk to the emulator at *url*."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }


def make_s3_bucket(url: str, name: str) -> None:
    """Make an empty bucket."""
    request = urllib.request.Request(f"{url}/{name}", method="PUT")  # noqa: S310 - a loopback URL of ours
    urllib.request.urlopen(request, timeout=DEADLINE_SECONDS).close()  # noqa: S310 - as above


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=5).close()  # noqa: S310 - as above
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("the emulator of S3 did not start")
