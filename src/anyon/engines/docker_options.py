"""What the Docker API is told and what it answers, as pure functions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from anyon.domain.ids import ProjectId
from anyon.domain.layout import HOME, SECRETS, WORKSPACE
from anyon.engines import docker_boots
from anyon.engines.engine import (
    Command,
    ContainerInfo,
    ContainerSpec,
    ContainerState,
    Limits,
    Mount,
    Stats,
)

LABEL_INSTANCE = "dev.anyon.instance"
"""Which Anyon home a container belongs to."""
LABEL_PROJECT = "dev.anyon.project"
NETWORK = "anyon"
BRIDGE = "br-any0"
"""A name that a firewall's rules can match (``br-any+``)."""

_NAME = "project-"
_NEVER = "0001-01-01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the options depend on besides the project.

    ``network`` is the name of the bridge; ``runtime`` an OCI runtime or empty for the engine's own;
    ``max_files`` and ``max_processes`` the most that the engine may let a user have (-1: any).
    """

    instance: str
    uid: int
    gid: int
    image: str
    network: str = NETWORK
    runtime: str = ""
    is_podman: bool = False
    is_rootless: bool = False
    cgroup_version: str = "1"
    max_files: int = -1
    max_processes: int = -1


def user_inside(
    wished: tuple[int, int], server: tuple[int, int], *, is_rootless: bool, is_podman: bool
) -> tuple[int, int]:
    """Return the user and group that work runs as inside, so that it can write its mounts.

    Only a server that is root can give directories to another user. Rootless Docker shows the
    user who runs it as root inside (without any power there); rootless Podman as itself.
    """
    if is_rootless and not is_podman:
        return (0, 0)
    return wished if server[0] == 0 and not is_rootless else server


def container_name(project: ProjectId) -> str:
    """Return the one name that a project's container can have: two cannot be made."""
    return f"{_NAME}{project}"


def network_name(project: ProjectId, host: Host) -> str:
    """Return the bridge of a project: Docker's can keep its members apart, Podman's cannot."""
    return f"{host.network}-{project}" if host.is_podman else host.network


def container_body(spec: ContainerSpec, host: Host) -> dict[str, Any]:
    """Return the body of ``POST /containers/create``."""
    env = {"HOME": str(HOME), **spec.env}
    # Podman's way of attaching is another.
    boot = {} if host.is_podman else {docker_boots.LABEL: "1"}
    return {
        "Image": spec.image or host.image,
        "User": f"{host.uid}:{host.gid}",
        "Env": [f"{name}={value}" for name, value in env.items()],
        # Tenant text never becomes one of our own labels.
        "Labels": {
            **{name: text for name, text in spec.labels.items() if name != docker_boots.LABEL},
            LABEL_INSTANCE: host.instance,
            LABEL_PROJECT: spec.project,
            **boot,
        },
        # The init before it reaps orphans.
        "Entrypoint": ["sh", "-c", docker_boots.SHELL] if boot else ["sleep", "2147483647"],
        "OpenStdin": bool(boot),
        "Cmd": [],
        "WorkingDir": str(WORKSPACE),
        "Hostname": f"project-{spec.project[:8]}",
        "StopSignal": "SIGTERM",
        "HostConfig": _host_config(spec, host),
    }


def _host_config(spec: ContainerSpec, host: Host) -> dict[str, Any]:
    # Podman gives a tmpfs to no user; all that is inside is one user's anyway.
    own = "mode=1777" if host.is_podman else f"mode=0700,uid={host.uid},gid={host.gid}"
    config: dict[str, Any] = {
        "Init": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Mounts": [_mount(mount) for mount in spec.mounts],
        "Tmpfs": {
            "/tmp": "rw,nosuid,nodev,exec,mode=1777,size=1g",  # noqa: S108 - inside the container
            str(SECRETS): f"rw,nosuid,nodev,noexec,size=16m,{own}",
        },
        "NetworkMode": network_name(spec.project, host),
        "PublishAllPorts": False,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": _log_config(is_podman=host.is_podman),
        "Ulimits": _ulimits(host),
        "ShmSize": 256 * 1024 * 1024,
        "IpcMode": "private",
        # When memory runs out, a project's work goes before the machine's own services.
        "OomScoreAdj": 500,
        **_limits(spec.limits),
    }
    if host.runtime:
        config["Runtime"] = host.runtime
    if host.cgroup_version == "2":
        config["CgroupnsMode"] = "private"
    if host.is_rootless:
        # A rootless engine may not lower the score of what it starts.
        del config["OomScoreAdj"]
        if host.is_podman:
            config["UsernsMode"] = "keep-id"
    return config


def _mount(mount: Mount) -> dict[str, Any]:
    # A bind by Mounts fails when the source is missing, where Binds would make it as root.
    return {
        "Type": "bind",
        "Source": str(mount.source),
        "Target": str(mount.target),
        "ReadOnly": mount.read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }


def _log_config(*, is_podman: bool) -> dict[str, Any]:
    # What a tenant writes to the first process's output would fill the host's disk.
    if is_podman:
        return {"Type": "json-file", "Config": {"max-size": "1mb"}}
    return {"Type": "local", "Config": {"max-size": "1m", "max-file": "2"}}


def _ulimits(host: Host) -> list[dict[str, Any]]:
    most = host.max_files if host.max_files > 0 else 65536
    limits: list[dict[str, Any]] = [
        {"Name": "nofile", "Soft": min(8192, most), "Hard": min(65536, most)},
        {"Name": "core", "Soft": 0, "Hard": 0},
    ]
    if host.is_podman and host.max_processes > 0:
        # Podman raises it by itself, which fails where it may not. The cgroup is the real limit.
        most = min(host.max_processes, 32768)
        limits.append({"Name": "nproc", "Soft": most, "Hard": most})
    return limits


def _limits(limits: Limits) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if limits.cpus:
        options["NanoCpus"] = int(limits.cpus * 1_000_000_000)
    if limits.memory_bytes:
        options["Memory"] = limits.memory_bytes
        options["MemorySwap"] = limits.memory_bytes  # the sum of both: no swap
    if limits.pids:
        options["PidsLimit"] = limits.pids
    return options


def network_body(project: ProjectId, host: Host) -> dict[str, Any]:
    """Return the body of ``POST /networks/create``: neighbours cannot reach each other."""
    options = (
        {"isolate": "true"}  # from other bridges
        if host.is_podman
        else {
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.bridge.name": BRIDGE if host.network == NETWORK else host.network,
        }
    )
    return {
        "Name": network_name(project, host),
        "CheckDuplicate": True,
        "Driver": "bridge",
        "Options": options,
        "Labels": {LABEL_INSTANCE: host.instance},
    }


def exec_body(command: Command) -> dict[str, Any]:
    """Return the body of ``POST /containers/…/exec``.

    A shell stands between only to say what is missing as a shell does (127, 126, words on
    stderr); it is gone by the time the program runs. The working directory is entered by it too:
    engines put their own words about a missing one into the program's stdout. And a terminal has
    its size from the beginning, which an engine's resize comes too late for.
    """
    size = command.terminal
    sized = f"stty rows {size.rows} cols {size.columns} 2>/dev/null; " if size else ""
    script = sized + 'cd -- "$1" || exit 126; shift; exec "$@"'
    return {
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": size is not None,
        "Env": [f"{name}={value}" for name, value in command.env.items()],
        "WorkingDir": "/",
        "Cmd": ["sh", "-c", script, "sh", str(command.cwd), *command.argv],
    }


def parse_info(
    answer: Mapping[str, Any], project: ProjectId, *, is_frozen: bool = False
) -> ContainerInfo:
    """Read the answer of ``GET /containers/…/json``; *is_frozen* is what its cgroup says."""
    state = answer["State"]
    running = bool(state.get("Running")) and state.get("Status") not in {"removing", "dead"}
    started = parse_time(state.get("StartedAt"))
    if running:
        frozen = is_frozen or bool(state.get("Paused"))
        seen = ContainerState.FROZEN if frozen else ContainerState.RUNNING
    else:
        seen = ContainerState.STOPPED
    return ContainerInfo(
        project=project,
        id=str(answer["Id"]),
        name=str(answer["Name"]).removeprefix("/"),
        state=seen,
        pid=(state.get("Pid") or None) if running else None,
        started_at=started,
        exit_code=state.get("ExitCode") if started and not running else None,
        labels=dict((answer.get("Config") or {}).get("Labels") or {}),
    )


def parse_time(text: str | None) -> datetime | None:
    """Read an engine's time (nanoseconds, any zone); its year one is None."""
    if not text or text.startswith(_NEVER):
        return None
    match = re.fullmatch(r"(.*?T\d\d:\d\d:\d\d)(\.\d{1,6})?\d*(Z|[+-]\d\d:\d\d)", text)
    if match is None:
        return None
    whole, fraction, zone = match.groups()
    parsed = datetime.fromisoformat(
        f"{whole}{(fraction or '').ljust(7, '0') if fraction else ''}{zone}"
    )
    return parsed.astimezone(UTC)


def project_of(summary: Mapping[str, Any]) -> ProjectId | None:
    """Return whose container an item of ``GET /containers/json`` is."""
    labels = summary.get("Labels") or {}
    found = labels.get(LABEL_PROJECT)
    names = {str(name).removeprefix("/") for name in summary.get("Names") or []}
    if found is None or container_name(ProjectId(found)) not in names:
        return None  # a copy that somebody made by hand, labels and all
    return ProjectId(found)


def parse_stats(answer: Mapping[str, Any], *, oom_kills: int = 0) -> Stats | None:
    """Read the answer of ``GET /containers/…/stats``; None when it has no numbers (not running).

    File cache that the kernel can drop is not counted, under either cgroup version.
    """
    memory = answer.get("memory_stats") or {}
    usage = (answer.get("cpu_stats") or {}).get("cpu_usage") or {}
    pids = (answer.get("pids_stats") or {}).get("current")
    if not pids and not memory.get("usage"):
        return None
    detail = memory.get("stats") or {}
    cache = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    used = int(memory.get("usage") or 0)
    return Stats(
        cpu_seconds=int(usage.get("total_usage") or 0) / 1_000_000_000,
        memory_bytes=used - cache if cache < used else used,
        pids=int(pids or 0),
        oom_kills=oom_kills,
    )
