"""What the Docker API is told, and what its answers mean, old and new."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import pytest

from anyon.domain.errors import InvalidInputError
from anyon.domain.ids import ProjectId
from anyon.engines import docker_options, docker_sockets
from anyon.engines.docker_client import api_version, parse_version
from anyon.engines.docker_options import Host
from anyon.engines.engine import (
    Command,
    ContainerSpec,
    ContainerState,
    Limits,
    Mount,
    TerminalSize,
)

PROJECT = ProjectId("8b0bd2f3-6a7e-4c0f-9a57-3f0f3f6f1c11")
HOST = Host(instance="home-1", uid=1000, gid=1001, image="anyon/workspace:latest")


def spec(**changes: object) -> ContainerSpec:
    """Return a spec."""
    given: dict[str, object] = {
        "project": PROJECT,
        "mounts": [Mount(source=Path("/data/p"), target=PurePosixPath("/workspace"))],
        "system": Path("/data/s"),
        **changes,
    }
    return ContainerSpec(**given)  # type: ignore[arg-type]


def test_a_container_can_do_little() -> None:
    """No capability, no new privilege, no port, no host namespace, no restart, bounded log, own user."""
    body = docker_options.container_body(spec(), HOST)
    host = body["HostConfig"]
    assert body["User"] == "1000:1001"
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Init"] is True
    assert host["NetworkMode"] == "anyon"
    assert host["RestartPolicy"] == {"Name": "no"}
    assert host["LogConfig"]["Config"] == {"max-size": "1m", "max-file": "2"}
    assert host["PublishAllPorts"] is False
    refused = {"Privileged", "PidMode", "UTSMode", "PortBindings", "Devices", "CapAdd", "Binds"}
    assert not refused & set(host)
    assert host["Tmpfs"]["/run/anyon-secrets"].endswith("uid=1000,gid=1001")


def test_limits_leave_no_swap() -> None:
    """Memory and swap together are the memory; what is not limited is not said."""
    limits = Limits(cpus=1.5, memory_bytes=1 << 30, pids=64)
    host = docker_options.container_body(spec(limits=limits), HOST)["HostConfig"]
    assert (host["NanoCpus"], host["PidsLimit"]) == (1_500_000_000, 64)
    assert host["Memory"] == host["MemorySwap"] == 1 << 30
    free = docker_options.container_body(spec(limits=Limits(pids=None)), HOST)["HostConfig"]
    assert not {"NanoCpus", "Memory", "MemorySwap", "PidsLimit"} & set(free)


def test_a_tenants_labels_cannot_be_ours() -> None:
    """A label that names another home or project is overwritten."""
    names = ("dev.anyon.instance", "dev.anyon.project", "dev.anyon.boot")
    labels = {**dict.fromkeys(names, "other"), "x": "y"}
    made = docker_options.container_body(spec(labels=labels), HOST)["Labels"]
    own = {"dev.anyon.instance": "home-1", "dev.anyon.project": PROJECT, "x": "y"}
    assert made == {**own, "dev.anyon.boot": "1"}
    podman = replace(HOST, is_podman=True)
    assert docker_options.container_body(spec(labels=labels), podman)["Labels"] == own


def test_a_copy_with_our_labels_is_not_listed() -> None:
    """Only the container that has the project's name is the project's."""
    labels = {"dev.anyon.project": str(PROJECT)}
    assert (
        docker_options.project_of({"Labels": labels, "Names": [f"/project-{PROJECT}"]}) == PROJECT
    )
    assert docker_options.project_of({"Labels": labels, "Names": ["/copy"]}) is None
    assert docker_options.project_of({"Labels": None, "Names": ["/x"]}) is None


def test_podman_and_rootless_get_what_they_know() -> None:
    """Podman has no `local` log driver; a rootless engine may not set an OOM score."""
    podman = Host(
        instance="i", uid=1, gid=1, image="x", is_podman=True, is_rootless=True, cgroup_version="2"
    )
    host = docker_options.container_body(spec(), podman)["HostConfig"]
    assert host["LogConfig"]["Type"] == "json-file"
    assert host["UsernsMode"] == "keep-id"
    assert host["CgroupnsMode"] == "private"
    assert "OomScoreAdj" not in host
    assert docker_options.network_body(PROJECT, podman)["Options"] == {"isolate": "true"}
    assert host["NetworkMode"] == f"anyon-{PROJECT}"


@pytest.mark.parametrize(
    ("server", "rootless", "podman", "expected"),
    [
        ((0, 0), False, False, (1000, 1000)),
        ((0, 0), False, True, (1000, 1000)),
        ((501, 20), False, False, (501, 20)),
        ((501, 20), True, False, (0, 0)),
        ((501, 20), True, True, (501, 20)),
    ],
)
def test_work_runs_as_who_can_write_the_mounts(
    server: tuple[int, int], rootless: bool, podman: bool, expected: tuple[int, int]
) -> None:
    """Only root gives directories away; else the user inside is the server's on the host."""
    found = docker_options.user_inside((1000, 1000), server, is_rootless=rootless, is_podman=podman)
    assert found == expected


def test_open_files_never_exceed_the_engines() -> None:
    """An engine that may not raise limits is asked for no more than it has."""
    few = Host(instance="i", uid=1, gid=1, image="x", max_files=4096)
    limit = docker_options.container_body(spec(), few)["HostConfig"]["Ulimits"][0]
    assert (limit["Soft"], limit["Hard"]) == (4096, 4096)


def test_neighbours_cannot_talk() -> None:
    """The shared bridge has inter-container traffic off, under a name that a firewall can match."""
    options = docker_options.network_body(PROJECT, HOST)["Options"]
    assert options["com.docker.network.bridge.enable_icc"] == "false"
    assert options["com.docker.network.bridge.name"] == "br-any0"


def test_a_terminals_size_is_set_before_the_program() -> None:
    """The program sees its size at once; without a terminal nothing is set."""
    sized = Command(argv=["vi"], terminal=TerminalSize(columns=91, rows=37))
    assert "stty rows 37 cols 91" in docker_options.exec_body(sized)["Cmd"][2]
    plain = docker_options.exec_body(Command(argv=["a", ""], cwd=PurePosixPath("/w d")))
    assert "stty" not in plain["Cmd"][2]
    assert plain["Cmd"][3:] == ["sh", "/w d", "a", ""]


def inspected(**state: object) -> dict[str, object]:
    """Return an inspect answer."""
    return {
        "Id": "abc",
        "Name": f"/project-{PROJECT}",
        "State": {"StartedAt": "2026-01-02T03:04:05.123456789Z", **state},
        "Config": {"Labels": {"a": "b"}},
    }


def test_states_of_an_inspect() -> None:
    """Running, paused, frozen by cgroup, exited, never started and removing are told apart."""
    read = docker_options.parse_info
    running = read(inspected(Status="running", Running=True, Pid=7), PROJECT)
    assert (running.state, running.pid, running.exit_code) == (ContainerState.RUNNING, 7, None)
    assert running.started_at == datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)
    paused = inspected(Status="paused", Running=True, Paused=True, Pid=7)
    assert read(paused, PROJECT).state is ContainerState.FROZEN
    frozen = read(inspected(Status="running", Running=True, Pid=7), PROJECT, is_frozen=True)
    assert frozen.state is ContainerState.FROZEN
    ended = read(inspected(Status="exited", Running=False, Pid=0, ExitCode=137), PROJECT)
    assert (ended.state, ended.pid, ended.exit_code) == (ContainerState.STOPPED, None, 137)
    new = inspected(Status="created", Running=False, Pid=0, ExitCode=0)
    new["State"]["StartedAt"] = "0001-01-01T00:00:00Z"  # type: ignore[index]
    made = read(new, PROJECT)
    assert (made.state, made.started_at, made.exit_code) == (ContainerState.STOPPED, None, None)
    going = read(inspected(Status="removing", Running=True, Pid=7), PROJECT)
    assert going.state is ContainerState.STOPPED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.5+09:00", datetime(2026, 1, 1, 18, 4, 5, 500000, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        (None, None),
        ("nonsense", None),
    ],
)
def test_times(text: str | None, expected: datetime | None) -> None:
    """Nanoseconds and zones are read; the engine's zero is None."""
    assert docker_options.parse_time(text) == expected


def test_stats_under_both_cgroup_versions() -> None:
    """Droppable cache is not counted: version 1 names it total_inactive_file, 2 inactive_file."""
    cpu = {"cpu_usage": {"total_usage": 2_500_000_000}}
    first = {
        "cpu_stats": cpu,
        "pids_stats": {"current": 3, "limit": 4096},
        "memory_stats": {
            "usage": 10_000,
            "stats": {"cache": 5_000, "inactive_file": 1, "total_inactive_file": 4_000},
        },
    }
    # As Engine 28 answers under cgroup 2.
    second = {
        "cpu_stats": {**cpu, "online_cpus": 2},
        "pids_stats": {"current": 3, "limit": 18446744073709551615},
        "memory_stats": {"usage": 10_000, "limit": 1 << 34, "stats": {"inactive_file": 4_000}},
    }
    for answer in (first, second):
        stats = docker_options.parse_stats(answer, oom_kills=2)
        assert stats is not None
        assert (stats.cpu_seconds, stats.memory_bytes, stats.pids) == (2.5, 6_000, 3)
        assert stats.oom_kills == 2
    stopped = {"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "pids_stats": {}, "memory_stats": {}}
    assert docker_options.parse_stats(stopped) is None


def test_the_version_that_both_sides_speak() -> None:
    """Old engines get theirs, new ones ours, and those that dropped ours their oldest."""
    assert api_version("1.41", "1.12") == "1.41"
    assert api_version("1.52", "1.44") == "1.47"
    assert api_version("1.60", "1.50") == "1.50"


def test_who_answers() -> None:
    """Docker 29 and Podman are told apart by their components."""
    docker = parse_version(
        {
            "Version": "29.1.0",
            "ApiVersion": "1.52",
            "MinAPIVersion": "1.44",
            "Components": [
                {"Name": "Engine", "Version": "29.1.0", "Details": {}},
                {"Name": "runc", "Version": "1.3.3", "Details": {}},
            ],
        }
    )
    assert (docker.api, docker.is_podman) == ("1.47", False)
    assert docker.components["runc"] == "1.3.3"
    podman = parse_version(
        {
            "Version": "5.4.2",
            "ApiVersion": "1.41",
            "MinAPIVersion": "1.24",
            "Components": [{"Name": "Podman Engine", "Version": "5.4.2"}],
        }
    )
    assert (podman.api, podman.is_podman) == ("1.41", True)


def test_where_sockets_are_looked_for() -> None:
    """DOCKER_HOST is taken at its word; else the machine's engine comes before the user's own."""
    named = docker_sockets.candidates({"DOCKER_HOST": "tcp://127.0.0.1:9"}, uid=7, home="/h")
    assert named == ["tcp://127.0.0.1:9"]
    found = docker_sockets.candidates({}, uid=7, home="/h")
    assert found[0] == "unix:///var/run/docker.sock"
    assert "unix:///run/user/7/podman/podman.sock" in found
    assert docker_sockets.address("/x.sock") == "unix:///x.sock"
    for bad in ("ssh://host", "x.sock", "http://h"):
        with pytest.raises(InvalidInputError):
            docker_sockets.address(bad)
