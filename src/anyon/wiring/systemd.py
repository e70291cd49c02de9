"""systemd's units for a server: rendered by pure functions, written whole, removed without the data.

The first lines of a unit carry the hash of the rest: what somebody changed by hand is not
overwritten. Changes belong into drop-ins (``systemctl edit``), which are never touched.
"""

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anyon.domain.errors import ConflictError, InvalidInputError
from anyon.wiring.mount_units import GCSFUSE, RCLONE, MountUnit

SERVER = "anyon-server.service"
CHECK = "anyon-check.service"
TIMER = "anyon-check.timer"
MOUNTS = (GCSFUSE, RCLONE)
SYSTEM_DIRECTORY = Path("/etc/systemd/system")
_MARK = "# Made by `anyon install systemd`; change it with `systemctl edit`. sha256="
_HIDDEN_BY_PROTECT_HOME = (Path("/home"), Path("/root"), Path("/run/user"))

_HARDENED = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ReadWritePaths={home}
ProtectHome={protect_home}
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallFilter=@chown
SystemCallErrorNumber=EPERM
UMask=0077
"""
_FILES = "LimitNOFILE=65536\n"
_ACCOUNTED = f"""\
{_FILES}MemoryMin=256M
CPUWeight=1000
"""
# What the server is denied, its sandboxes would be denied too: they are its children. So there is
# no seccomp filter, no mount namespace and no umask here; bubblewrap confines what runs inside.
_EMBEDDED = """\
# Sandboxes are children of this service: they need namespaces, mounts and their own modes of files.
Delegate=yes
TasksMax=infinity
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that decides what the units say.

    ``user`` None is for a user's own service manager (``--user``), which confines nothing. Only
    the docker engine's server is hardened: its work lies under the Docker daemon, not in this unit.
    As root it is not: it then gives files to the users of containers, for which it needs powers.
    ``mount`` is a bucket that systemd is to mount for it.
    """

    program: Path
    home: Path
    engine: str
    user: str | None = None
    uid: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    mount: MountUnit | None = None

    @property
    def is_hardened(self) -> bool:
        """Whether the unit confines the server."""
        return self.engine == "docker" and self.user not in {None, "root"}


def render(plan: Plan) -> Mapping[str, str]:
    """Return the units' texts by their names."""
    _check(plan)
    units = {SERVER: _server(plan), CHECK: _check_service(plan), TIMER: _timer()}
    if plan.mount is not None:
        units[plan.mount.name] = _mount(plan, plan.mount)
    return {name: f"{_MARK}{_digest(text)}\n{text}" for name, text in units.items()}


def _check(plan: Plan) -> None:
    texts = [str(plan.program), str(plan.home), plan.user or "", *plan.environment.values()]
    if any(not text.isprintable() for text in texts):
        raise InvalidInputError(
            "a path or a setting holds control characters, which no unit can", code="bad_unit"
        )


def _server(plan: Plan) -> str:
    is_docker = plan.engine == "docker"
    wants = ["network-online.target", *(["docker.service"] if is_docker and plan.user else [])]
    wants = [*(wants if plan.user else []), *([plan.mount.name] if plan.mount else [])]
    names = " ".join(wants)
    order = f"Wants={names}\nAfter={names}\n" if names else ""
    return (
        "[Unit]\nDescription=Anyon: one development environment per project\n"
        f"{order}StartLimitIntervalSec=0\n\n[Service]\nType=notify\nNotifyAccess=main\n{_who(plan)}{_environment(plan)}"
        f"ExecStart={_quoted(str(plan.program), is_command=True)} serve\n"
        # 2: the settings are wrong, and will be wrong again in a second.
        # A server that takes up many projects is not late; one that does not turn any more is.
        "TimeoutStartSec=infinity\nWatchdogSec=60\n"
        "Restart=always\nRestartSec=1\nRestartPreventExitStatus=2\nTimeoutStopSec=20\n"
        # Sandboxes go on when the server stops; Docker's containers lie under its own daemon.
        f"KillMode={'mixed' if is_docker else 'process'}\n{_confined(plan)}"
        f"\n[Install]\nWantedBy={'multi-user.target' if plan.user else 'default.target'}\n"
    )


def _who(plan: Plan) -> str:
    if plan.user is None:
        return ""
    lines = [f"User={plan.user}"]
    if plan.engine == "docker" and plan.user != "root":
        lines.append("SupplementaryGroups=docker")
    if plan.home.parent == Path("/var/lib"):
        lines += [f"StateDirectory={_escaped(plan.home.name)}", "StateDirectoryMode=0700"]
    return "\n".join(lines) + "\n"


def _environment(plan: Plan) -> str:
    settings = {"ANYON_HOME": str(plan.home), "ANYON_ENGINE": plan.engine, **plan.environment}
    if plan.is_hardened and plan.uid:
        # Work inside runs as the server's own user, so that each can read the other's files.
        settings["ANYON_CONTAINER_UID"] = str(plan.uid)
    lines = [f"Environment={_quoted(f'{name}={value}')}" for name, value in settings.items()]
    if plan.user is not None:
        # Agents' keys and further settings; only the service manager reads it.
        lines.append("EnvironmentFile=-/etc/anyon/environment")
    return "\n".join(lines) + "\n"


def _confined(plan: Plan) -> str:
    if not plan.is_hardened:
        accounted = _ACCOUNTED if plan.user else ""
        return accounted + ("" if plan.engine == "docker" else _EMBEDDED)
    return f"{_ACCOUNTED}TasksMax=4096\nOOMScoreAdjust=-900\n{_hardened(plan)}"


def _hardened(plan: Plan) -> str:
    is_under_homes = any(
        path.is_relative_to(place)
        for path in (plan.program, plan.home)
        for place in _HIDDEN_BY_PROTECT_HOME
    )
    return _HARDENED.format(
        # With an own directory below /var/lib systemd makes it; elsewhere it must be there.
        home=_quoted(str(plan.home)),
        protect_home="read-only" if is_under_homes else "yes",
    )


def _check_service(plan: Plan) -> str:
    confined = _hardened(plan) if plan.is_hardened else ""
    return (
        "[Unit]\nDescription=Anyon: examine this machine\n\n[Service]\nType=oneshot\n"
        f"{_who(plan)}{_environment(plan)}"
        f"ExecStart={_quoted(str(plan.program), is_command=True)} doctor\n"
        # As many files as the server may open, or it would be told of too few each hour.
        f"TimeoutStartSec=5min\n{_FILES if plan.user else ''}{confined}"
    )


def _mount(plan: Plan, mount: MountUnit) -> str:
    """Return the plan's unit: after the network, again after a failure, unmounted at the stop."""
    place, unmount = _quoted(str(mount.place)), _quoted(str(mount.unmounter), is_command=True)
    network = "Wants=network-online.target\nAfter=network-online.target\n" if plan.user else ""
    return (
        f"[Unit]\nDescription=Anyon: the bucket of its projects, mounted by {mount.mounter}\n{network}"
        # Both would mount at one place.
        f"Conflicts={mount.other}\n"
        # The plan's 10 s between two tries; never too many tries.
        f"StartLimitIntervalSec=0\n\n[Service]\nType=exec\n{_who(plan)}{_environment(plan)}"
        f"ExecStartPre=-{unmount} -uz {place}\n{_mounting(plan, mount, place, unmount)}"
        # What was closed is in the bucket; what is open is written now.
        "TimeoutStopSec=5min\nRestart=on-failure\nRestartSec=10\n"
        f"\n[Install]\nWantedBy={'multi-user.target' if plan.user else 'default.target'}\n"
    )


def _mounting(plan: Plan, mount: MountUnit, place: str, unmount: str) -> str:
    """Return how it is mounted and unmounted: rclone's mount settles first, for it writes a moment later."""
    program = _quoted(str(plan.program), is_command=True)
    own = _quoted(str(mount.program), is_command=True)
    if mount.mounter == "rclone":
        start = f"ExecStart={program} mount run --program {own}\n"
        # Asked to end while it unmounts it ends so, and no failure.
        stop = f"ExecStop={program} mount down\nSuccessExitStatus=143\n"
    else:
        start = (
            f"ExecStartPre={program} mount prepare\nExecStart={own} --foreground"
            f" --config-file {_quoted(str(mount.config))} {_quoted(mount.bucket)} {place}\n"
        )
        stop = f"ExecStop={unmount} -u {place}\n"
    return f"{start}ExecStartPost={program} mount wait\n{stop}"


def _timer() -> str:
    return (
        "[Unit]\nDescription=Anyon: examine this machine every hour\n\n"
        "[Timer]\nOnBootSec=5min\nOnUnitActiveSec=1h\nRandomizedDelaySec=1min\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(text: str, *, is_command: bool = False) -> str:
    """Return *text* as one word of a unit: no specifier, no variable, no blank that parts it."""
    inner = _escaped(text).replace("\\", "\\\\").replace('"', '\\"')
    if is_command:
        inner = inner.replace("$", "$$")
    return f'"{inner}"'


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_ours(text: str) -> bool:
    """Say whether a unit is as ``render`` wrote it."""
    head, _, rest = text.partition("\n")
    return head == f"{_MARK}{_digest(rest)}"


def install(directory: Path, units: Mapping[str, str], *, force: bool = False) -> Sequence[str]:
    """Write *units* into *directory*, each whole or not at all, and return those that changed.

    ConflictError (``file_not_ours``), with nothing written, where a unit is in the way that is
    not as this command wrote it, unless *force*. InvalidInputError ``not_writable``.
    """
    try:
        found = {name: _read(directory / name) for name in units}
        changed = [name for name, text in units.items() if found[name] != text]
        _refuse_foreign(directory, [n for n in changed if _is_foreign(found[n])], force=force)
        directory.mkdir(parents=True, exist_ok=True)
        for name in changed:
            _replace(directory / name, units[name])
    except OSError as error:
        raise _not_writable(directory, error) from error
    return changed


def uninstall(directory: Path, *, force: bool = False) -> Sequence[str]:
    """Remove the units that ``install`` wrote, and return their names; data and drop-ins stay."""
    try:
        found = {name: _read(directory / name) for name in (SERVER, CHECK, TIMER, *MOUNTS)}
        there = [name for name, text in found.items() if text is not None]
        _refuse_foreign(directory, [n for n in there if _is_foreign(found[n])], force=force)
        for name in there:
            (directory / name).unlink()
    except OSError as error:
        raise _not_writable(directory, error) from error
    return there


def _is_foreign(text: str | None) -> bool:
    return text is not None and not _is_ours(text)


def _refuse_foreign(directory: Path, names: Sequence[str], *, force: bool) -> None:
    if names and not force:
        raise ConflictError(
            f"not made by this command, or changed since: {', '.join(names)} in {directory}",
            code="file_not_ours",
            hint="Put changes into drop-ins (systemctl edit), or overwrite them with --force.",
        )


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _not_writable(directory: Path, error: OSError) -> InvalidInputError:
    return InvalidInputError(
        f"{directory} cannot be written: {error}",
        code="not_writable",
        hint="Run it as root, or with --user for your own service manager.",
    )


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
