"""Finding a container's cgroup on this machine, and never another one."""

from pathlib import Path

from anyon.domain.ids import ProjectId
from anyon.engines import docker_freezer, docker_programs

ID = "f" * 64
V1 = f"""\
12:freezer:/docker/{ID}
11:memory:/docker/{ID}
10:cpu,cpuacct:/docker/{ID}
1:name=systemd:/docker/{ID}
0::/docker/{ID}
"""
V2_SYSTEMD = f"0::/system.slice/docker-{ID}.scope/init\n"
V2_PODMAN = f"0::/machine.slice/libpod-{ID}.scope/container\n"
FOREIGN = "12:freezer:/user.slice\n0::/user.slice/session-1.scope\n"
MOUNTS = """\
30 25 0:26 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpu,cpuacct
32 25 0:28 /part /elsewhere rw - cgroup cgroup rw,memory
33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""


def test_paths_end_at_the_container() -> None:
    """Engines nest their groups differently; the one that bears the container's id is meant."""
    assert docker_freezer.cgroup_paths(V1, ID)["freezer"] == f"/docker/{ID}"
    assert docker_freezer.cgroup_paths(V2_SYSTEMD, ID) == {"": f"/system.slice/docker-{ID}.scope"}
    assert docker_freezer.cgroup_paths(V2_PODMAN, ID) == {"": f"/machine.slice/libpod-{ID}.scope"}


def test_a_pid_that_was_used_again_is_nobody() -> None:
    """A process outside the container's cgroup gives no path: we freeze nothing of the host."""
    assert docker_freezer.cgroup_paths(FOREIGN, ID) == {}


def test_mount_points() -> None:
    """Only a mount of a whole hierarchy counts."""
    at = docker_freezer.mount_point
    assert at(MOUNTS, "freezer") == Path("/sys/fs/cgroup/freezer")
    assert at(MOUNTS, "cpuacct") == Path("/sys/fs/cgroup/cpu,cpuacct")
    assert at(MOUNTS, "memory") is None
    assert at(MOUNTS, "") == Path("/sys/fs/cgroup/unified")


def fake_machine(tmp_path: Path, memberships: str, *, version: int) -> Path:
    """Make a proc directory whose mounts lie below *tmp_path*."""
    proc = tmp_path / "proc"
    for name in ("7", "self"):
        (proc / name).mkdir(parents=True)
    (proc / "7" / "cgroup").write_text(memberships)
    kind = "cgroup cgroup rw,freezer" if version == 1 else "cgroup2 cgroup2 rw"
    (proc / "self" / "mountinfo").write_text(f"1 1 0:1 / {tmp_path}/groups rw - {kind}\n")
    return proc


def test_version_one_is_found_and_read(tmp_path: Path) -> None:
    """The freezer's state file says frozen, freezing counts as frozen, and thawed is not."""
    proc = fake_machine(tmp_path, V1, version=1)
    group = tmp_path / "groups" / "docker" / ID
    group.mkdir(parents=True)
    found = docker_freezer.find(7, ID, proc=proc)
    assert found is not None
    assert (found.version, found.freezer) == (1, group)
    for word, frozen in (("THAWED", False), ("FREEZING", True), ("FROZEN", True)):
        (group / "freezer.state").write_text(word + "\n")
        assert found.is_frozen() is frozen


def test_version_two_is_found_and_read(tmp_path: Path) -> None:
    """Under version 2 the events file says it, and counts kills for want of memory."""
    proc = fake_machine(tmp_path, V2_SYSTEMD, version=2)
    group = tmp_path / "groups" / "system.slice" / f"docker-{ID}.scope"
    group.mkdir(parents=True)
    (group / "cgroup.freeze").write_text("0\n")
    (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    (group / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\n")
    found = docker_freezer.find(7, ID, proc=proc)
    assert found is not None
    assert (found.version, found.is_frozen(), found.oom_kills()) == (2, False, 2)
    (group / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    assert found.is_frozen()


def test_a_cgroup_is_looked_for_once_a_start(tmp_path: Path) -> None:
    """What is not there yet is looked for again, what was found is not, and another start's is."""
    proc = fake_machine(tmp_path, V1, version=1)
    group = tmp_path / "groups" / "docker" / ID
    project = ProjectId("one")
    cgroups = docker_freezer.Cgroups(proc)
    assert cgroups.of(project, 7, ID) is None
    group.mkdir(parents=True)
    found = cgroups.of(project, 7, ID)
    assert found is not None
    (proc / "7/cgroup").unlink()
    assert cgroups.of(project, 7, ID) is found
    assert cgroups.of(project, 8, ID) is None
    assert cgroups.of(ProjectId("two"), 7, ID) is None
    cgroups.forget(project)
    assert cgroups.of(project, 7, ID) is None


async def test_version_two_is_frozen_and_thawed(tmp_path: Path) -> None:
    """The wish is written, and success is what the kernel reports, not what was written."""
    group = tmp_path / "group"
    group.mkdir()
    (group / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    cgroup = docker_freezer.Cgroup(freezer=group, memory=None, version=2)
    assert await cgroup.freeze()
    assert (group / "cgroup.freeze").read_text() == "1"
    (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    assert await cgroup.thaw()
    assert (group / "cgroup.freeze").read_text() == "0"


def test_no_program_outside_the_container_is_killed(tmp_path: Path) -> None:
    """A pid that is not the container's is left alone, whatever its number."""
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "cgroup").write_text(FOREIGN)
    (tmp_path / "1" / "status").write_text("NSpid:\t1\n")
    assert docker_programs.kill(1, ID, proc=tmp_path) is None
    assert docker_programs.kill(999999, ID, proc=tmp_path) is None


def test_the_pid_inside() -> None:
    """The innermost of a process's pids is the one that it has in its container."""
    assert docker_programs.inner_pid("Name:\tsh\nNSpid:\t4711\t23\n") == "23"
    assert docker_programs.inner_pid("Name:\tsh\n") is None
