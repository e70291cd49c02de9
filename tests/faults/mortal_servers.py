"""Servers that die where they are told to: forks of this process, so that a life costs no start of Python.

Each is the whole server as `anyon serve` runs it. Whoever forks must have no threads.
"""

import asyncio
import base64
import http.client
import json
import os
import pickle
import signal
import socket
import sys
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from anyon import failpoints
from anyon.config import Settings, load
from anyon.wiring.serve import serve

T = TypeVar("T")
PATIENCE = 120.0


class DiedError(Exception):
    """The server went before it answered."""


def fork(work: Callable[[], object], log: Path | None = None) -> int:
    """Do *work* in a process of its own and return its id; its exit code is 0 if that returned."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if log is not None:
                handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(handle, 1)
                os.dup2(handle, 2)
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - a fork must end here, whatever happens
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return pid


def end_of(pid: int) -> int:
    """Wait for a fork; its exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def asked(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return what *work* returns, awaited in a fork: its threads are not ours."""
    reading, writing = os.pipe()

    def tell() -> None:
        data = pickle.dumps(asyncio.run(work()))
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(data)

    pid = fork(tell)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    assert end_of(pid) == 0, "a look failed; see above"
    found: T = pickle.loads(data)
    return found


class MortalServer:
    """A server over *home*; ``start``, ``arm``, and wait for its end."""

    def __init__(
        self, home: Path, engine: str, *, patch: Callable[[], None] | None = None, **more: str
    ) -> None:
        """Begin nothing yet; *patch* is done first in each life that is given none of its own."""
        self.home = home
        self._patch = patch
        self.log = home.with_name(f"{home.name}.log")
        self._wish = home.with_name(f"{home.name}.wish")
        self._env = {
            "ANYON_HOME": str(home),
            "ANYON_ENGINE": engine,
            "ANYON_DEFAULT_AGENT": "SHELL",
            "ANYON_FREEZE_AFTER": "0",
            "ANYON_STOP_AFTER": "0",
            "ANYON_ARCHIVE_AFTER": "0",
            "ANYON_CHECKPOINT_INTERVAL": "0",
            "ANYON_RECONCILE_INTERVAL": "200ms",
            "ANYON_STOP_GRACE": "1s",
            "ANYON_REPLICA_INTERVAL": "0",  # a program more for each of many short lives
            "ANYON_WAKES_PER_HOUR": "0",
            "ANYON_LOG_LEVEL": "warning",
            **more,
        }
        self._pid = 0
        self._port = 0

    def settings(self, **more: str) -> Settings:
        """Return what the server is set to."""
        return load({**self._env, **more})

    def start(
        self, point: str = "", *, patch: Callable[[], None] | None = None, **more: str
    ) -> None:
        """Start a life that dies at *point*, *patch* done in it first."""
        self._port = _free_port()
        patch = patch or self._patch
        settings = self.settings(ANYON_PORT=str(self._port), ANYON_FAILPOINT=point, **more)

        def live() -> None:
            signal.signal(signal.SIGUSR1, self._arm)
            if patch is not None:
                patch()
            asyncio.run(serve(settings))

        self._pid = fork(live, self.log)

    def _arm(self, *_: object) -> None:
        failpoints.arm(self._wish.read_text())
        self._wish.unlink()

    def arm(self, point: str) -> None:
        """Let this life die at *point*, from now on."""
        self._wish.write_text(point)
        os.kill(self._pid, signal.SIGUSR1)
        wait_for(lambda: not self._wish.exists(), "the server to be armed")

    def answer(self) -> None:
        """Wait until it answers."""

        def answers() -> bool:
            assert not self.is_over(), f"the server ended:\n{self.said()}"
            try:
                return self.call("GET", "/api/health") is not None
            except DiedError:
                return False

        wait_for(answers, "the server to answer")

    def said(self) -> str:
        """Return the last that its lives logged."""
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""

    def is_over(self) -> bool:
        """Say whether this life has ended; its end is left to be waited for."""
        return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def end(self) -> int:
        """Wait for this life's end and return how it ended."""
        wait_for(self.is_over, "the server's death")
        pid, self._pid = self._pid, 0
        return end_of(pid)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End this life, if there is one."""
        if self._pid:
            os.kill(self._pid, number)
            self.end()

    def call(self, method: str, path: str, body: object | None = None) -> Any:
        """Return the ``data`` of an answer; HTTPError for a refusal, DiedError if none comes."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            error.add_note(error.read().decode(errors="replace"))
            raise
        except (OSError, http.client.HTTPException) as error:
            raise DiedError(str(error)) from error

    def run(self, project: str, script: str) -> str:
        """Run a script in a project to its end and return what it printed."""
        made = self.call("POST", f"/api/projects/{project}/exec", {"argv": ["sh", "-c", script]})
        return self.printed(made["id"])

    def printed(self, process: str) -> str:
        """Return all that a process prints, waiting for its end."""
        found, offset = b"", 0
        while True:
            path = f"/api/processes/{process}/output?offset={offset}&wait=30"
            chunk = self.call("GET", path)
            found += base64.b64decode(chunk["data"])
            offset = chunk["next_offset"]
            if chunk["finished"]:
                return found.decode()


def wait_for(holds: Callable[[], bool], what: str, *, seconds: float = PATIENCE) -> float:
    """Wait until *holds* and return how long that took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.02)
    return time.monotonic() - began


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
