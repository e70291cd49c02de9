"""Debian's Prometheus for tests: its checker, and a server of one's own."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE_SECONDS = 60.0


def need(program: str) -> str:
    """Return the path of one of Debian's programs; missing is a skip at home, a failure in CI."""
    found = shutil.which(program)
    if found is None:
        reason = f"{program} is not there: run scripts/services/prometheus.sh start"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def promtool(*arguments: str, stdin: str = "") -> tuple[int, str]:
    """Run promtool; return its exit code and all its words."""
    done = subprocess.run(
        [need("promtool"), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


class Prometheus:
    """A running Prometheus that can be asked."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str, **parameters: str) -> Any:
        """Return the ``data`` of an answer."""
        url = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)["data"]

    def query(self, expr: str) -> list[Any]:
        """Return the samples that an expression has now."""
        found: list[Any] = self.get("query", query=expr)["result"]
        return found


@contextmanager
def node_exporter() -> Iterator[str]:
    """Run a node exporter for the length of the block; give its address as host:port."""
    listen = _free_address()
    command = [need("prometheus-node-exporter"), f"--web.listen-address={listen}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_ready(f"http://{listen}/metrics"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail("the node exporter did not start")
            time.sleep(0.1)
        yield listen
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_SECONDS)


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def prometheus(config: Path, data: Path) -> Iterator[Prometheus]:
    """Run a Prometheus over *config* for the length of the block."""
    listen = _free_address()
    command = [
        need("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address={listen}",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    ]
    log = data.with_suffix(".log")
    with log.open("wb") as words:
        process = subprocess.Popen(command, stdout=words, stderr=words)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_ready(f"http://{listen}/-/ready"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"Prometheus did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield Prometheus(f"http://{listen}")
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_SECONDS)


def is_ready(url: str) -> bool:
    """Say whether an address answers well."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
