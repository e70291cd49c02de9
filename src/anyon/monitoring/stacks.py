"""Starting and ending the distribution's own Prometheus, exporter, Alertmanager and Grafana over a server."""

import dataclasses
import fcntl
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from anyon.domain.errors import InvalidInputError, UnavailableError
from anyon.monitoring import folders, programs
from anyon.monitoring.folders import Outcome
from anyon.monitoring.keepers import (
    GRACE_SECONDS,
    LOCK,
    PLAN,
    keeper_of,
    log_of,
    plan_text,
    read_plan,
)
from anyon.monitoring.programs import PORTS, Program
from anyon.monitoring.renderings import Targets, render

PATIENCE_SECONDS = 60.0
_PASSWORD = "grafana-password"  # noqa: S105 - the name of a file


class State(StrEnum):
    """What was done."""

    STARTED = "started"
    RUNNING = "running"
    RELOADED = "reloaded"
    STOPPED = "stopped"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What runs now, and what was done for it."""

    state: State
    programs: Sequence[Program] = ()

    @property
    def moved(self) -> Mapping[str, int]:
        """Which programs do not listen on their usual port: something else does."""
        return {it.name: it.port for it in self.programs if it.port != PORTS[it.name]}


def up(directory: Path, targets: Targets, *, force: bool = False) -> Standing:
    """Bring the programs up over *targets*, and return once all are ready; repeats change nothing.

    What runs already goes on: it reads its configuration anew where that has changed. MissingError
    (``monitoring_missing``) for what is not installed, ConflictError (``file_not_ours``) for
    configuration that somebody changed, unless *force*; UnavailableError (``monitoring_failed``)
    with the last words of what did not become ready: nothing is left running then.
    """
    paths = programs.installed()
    with _alone(directory):
        keeper, former = keeper_of(directory), read_plan(directory)
        if keeper is not None and {it.name for it in former} != set(paths):
            _end(directory, keeper)  # something was installed since, or removed
            keeper = None
        ports = _ports(former if keeper is not None else (), tuple(paths))
        plan = programs.plan(paths, ports, directory, password=_password(directory))
        changed = _configured(directory, targets, ports, force=force)
        if keeper is not None:
            if changed:
                os.kill(keeper, signal.SIGHUP)
            _wait_ready(directory, former)
            return Standing(state=State.RELOADED if changed else State.RUNNING, programs=former)
        _start(directory, plan)
        return Standing(state=State.STARTED, programs=plan)


def down(directory: Path) -> Standing:
    """End what ``up`` started; nothing running is success. What was collected stays."""
    if not directory.is_dir():
        return Standing(state=State.ABSENT)
    with _alone(directory):
        keeper = keeper_of(directory)
        if keeper is None:
            return Standing(state=State.ABSENT)
        _end(directory, keeper)
        return Standing(state=State.STOPPED)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let one command at a time act on the directory, which is made if it is not there."""
    try:
        for name in ("logs", "data/prometheus", "data/alertmanager", "data/grafana"):
            (directory / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        with (directory / "command.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except PermissionError as error:
        raise InvalidInputError(
            f"{directory} cannot be written: {error}",
            code="not_writable",
            hint="Choose another directory with --dir.",
        ) from error


def _ports(former: Sequence[Program], names: Sequence[str]) -> Mapping[str, int]:
    known = {it.name: it.port for it in former}
    return known if set(known) == set(names) else programs.free_ports(names)


def _configured(
    directory: Path, targets: Targets, ports: Mapping[str, int], *, force: bool
) -> bool:
    """Write the configuration for these ports; say whether it is another than before."""
    here = dataclasses.replace(
        targets,
        node=f"{programs.HOST}:{ports['node']}",
        prometheus=f"{programs.HOST}:{ports['prometheus']}",
        alertmanager=f"{programs.HOST}:{ports['alertmanager']}",
        dashboards=str(directory / "config" / "grafana" / "dashboards"),
    )
    outcomes = folders.write(directory / "config", render(here), force=force)
    return any(one is not Outcome.UNCHANGED for one in outcomes.values())


def _password(directory: Path) -> str:
    """Return the password of Grafana's user ``admin``, made at the first call."""
    path = directory / _PASSWORD
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(18) + "\n")
    return path.read_text(encoding="ascii").strip()


def _start(directory: Path, plan: Sequence[Program]) -> None:
    with os.fdopen(
        os.open(directory / PLAN, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w"
    ) as file:
        file.write(plan_text(plan))
    (directory / LOCK).touch()
    with log_of(directory, "keeper").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "anyon.monitoring.keepers", str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    try:
        _wait_ready(directory, plan)
    except BaseException:
        keeper = keeper_of(directory)
        if keeper is not None:
            _end(directory, keeper)
        raise


def _wait_ready(directory: Path, plan: Sequence[Program]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    for program in plan:
        url = f"http://{program.address}{program.ready_path}"
        while not _answers(url):
            if time.monotonic() > deadline:
                words = _last_words(log_of(directory, program.name))
                raise UnavailableError(
                    f"{program.name} did not become ready: {words}",
                    code="monitoring_failed",
                    hint=f"Its log is {log_of(directory, program.name)}.",
                )
            time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        # The address is always http://127.0.0.1:port, made above.
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    return " / ".join(lines[-3:]) or "it said nothing"


def _end(directory: Path, keeper: int) -> None:
    """End a keeper and all that it keeps; return once it is gone."""
    os.kill(keeper, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS + 10
    while keeper_of(directory) == keeper:
        if time.monotonic() > deadline:
            os.kill(keeper, signal.SIGKILL)  # the kernel ends what it kept
            deadline = time.monotonic() + GRACE_SECONDS
        time.sleep(0.05)
