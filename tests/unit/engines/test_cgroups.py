"""Control groups: what is read from recorded files, and what is written for limits."""

from pathlib import Path

import pytest

from anyon.domain.errors import EngineFailedError
from anyon.engines.cgroups import (
    Group,
    Hierarchies,
    limit_files,
    make_group,
    member_pids,
    parse_flat,
    parse_mounts,
)
from anyon.engines.engine import Limits

V1 = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 22 0:25 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:27 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
33 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
34 30 0:29 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
35 30 0:30 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
36 30 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V2 = """\
24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
35 24 0:29 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate
"""
MEMORY_STAT_V1 = "cache 4096\nrss 8192\ntotal_inactive_file 1000\nhierarchical_memory_limit -1\n"
OOM_CONTROL_V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"
EVENTS_V2 = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 3\noom_group_kill 0\n"
CPU_STAT_V2 = "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n"


def test_mounts_of_version_1():
    """Each controller's mount is found, those that share one too; version 1 freezes."""
    found = parse_mounts(V1)
    assert found.v1["cpu"] == found.v1["cpuacct"] == Path("/sys/fs/cgroup/cpu,cpuacct")
    assert found.v1["freezer"] == Path("/sys/fs/cgroup/freezer")
    assert set(found.v1) == {"cpu", "cpuacct", "freezer", "memory", "pids"}
    assert found.version == 1


def test_mounts_of_version_2():
    """The one mount is found; without any there is no version."""
    found = parse_mounts(V2)
    assert (found.v1, found.v2, found.version) == ({}, Path("/sys/fs/cgroup"), 2)
    assert parse_mounts(V1.splitlines()[0]).version is None
    assert parse_mounts("nonsense\n\n").version is None


def test_a_mount_point_with_a_blank():
    """The kernel writes a blank as an octal escape."""
    line = "36 30 0:31 / /sys/fs/my\\040groups rw - cgroup2 cgroup2 rw"
    assert parse_mounts(line).v2 == Path("/sys/fs/my groups")


def test_flat_files():
    """Lines that are no name with a number are left out."""
    assert parse_flat(OOM_CONTROL_V1)["oom_kill"] == 2
    assert parse_flat(EVENTS_V2)["oom_kill"] == 3
    assert parse_flat("a b\n\nc 1 2\nd -4\n") == {"d": -4}


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (
            1,
            {
                "memory.memsw.limit_in_bytes": "1000000",
                "memory.limit_in_bytes": "1000000",
                "pids.max": "64",
                "cpu.cfs_period_us": "100000",
                "cpu.cfs_quota_us": "150000",
            },
        ),
        (
            2,
            {
                "memory.max": "1000000",
                "memory.swap.max": "0",
                "pids.max": "64",
                "cpu.max": "150000 100000",
            },
        ),
    ],
)
def test_limits_become_files(version, expected):
    """Each limit has its file in each version; no limit, no file."""
    limits = Limits(cpus=1.5, memory_bytes=1_000_000, pids=64)
    assert {name: text for _, name, text, _ in limit_files(limits, version)} == expected
    assert limit_files(Limits(pids=None), version) == []


def _files(place: Path, contents: dict[str, str]) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (place / name).write_text(text)
    return place


def test_numbers_of_version_1(tmp_path):
    """Memory is without the page cache that can be dropped; CPU time comes in nanoseconds."""
    group = Group(
        1,
        {
            "memory": _files(
                tmp_path / "memory",
                {
                    "memory.stat": MEMORY_STAT_V1,
                    "memory.usage_in_bytes": "12288\n",
                    "memory.oom_control": OOM_CONTROL_V1,
                },
            ),
            "cpuacct": _files(tmp_path / "cpu", {"cpuacct.usage": "1500000000\n"}),
            "pids": _files(tmp_path / "pids", {"pids.current": "7\n"}),
        },
    )
    stats = group.stats()
    assert (stats.memory_bytes, stats.cpu_seconds, stats.pids, stats.oom_kills) == (
        11288,
        1.5,
        7,
        2,
    )


def test_numbers_of_version_2(tmp_path):
    """All from one directory; a file that is not there counts nothing."""
    place = _files(
        tmp_path,
        {
            "memory.stat": "anon 1\ninactive_file 100\n",
            "memory.current": "5000\n",
            "memory.events": EVENTS_V2,
            "cpu.stat": CPU_STAT_V2,
        },
    )
    stats = Group(2, dict.fromkeys(("memory", "pids", "cpu"), place)).stats()
    assert (stats.memory_bytes, stats.cpu_seconds, stats.pids, stats.oom_kills) == (4900, 2.5, 0, 3)


def test_a_limit_that_the_machine_does_not_offer_is_reported(tmp_path):
    """What cannot be limited is said, what can is written."""
    place = _files(tmp_path, {"pids.max": "max"})
    missing = Group(2, dict.fromkeys(("memory", "pids", "cpu"), place)).limit(
        Limits(cpus=1, memory_bytes=1, pids=5)
    )
    assert missing == ["cpu", "memory"]
    assert (place / "pids.max").read_text() == "5"


def test_a_freezer_that_does_not_freeze_is_an_error(tmp_path, monkeypatch):
    """The wait has an end, and what was half frozen is thawed again."""
    monkeypatch.setattr("anyon.engines.cgroups._PATIENCE", 0.01)
    place = _files(tmp_path, {"cgroup.freeze": "0", "cgroup.events": "populated 1\nfrozen 0\n"})
    group = Group(2, {"freezer": place})
    with pytest.raises(EngineFailedError) as refused:
        group.freeze()
    assert refused.value.code == "freeze_failed"
    assert not group.frozen


def test_no_control_groups_is_an_os_error():
    """The caller decides what to do without them."""
    with pytest.raises(OSError, match="no control groups"):
        make_group(Hierarchies(), "x")


def test_members_are_of_all_depths_or_unknown(tmp_path: Path) -> None:
    """Groups within count too; a process that this machine cannot number makes the answer unknown."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "cgroup.procs").write_text("11\n12\n")
    (tmp_path / "a/cgroup.procs").write_text("")
    (tmp_path / "a/b/cgroup.procs").write_text("13\n")
    assert sorted(member_pids(tmp_path) or ()) == [11, 12, 13]
    (tmp_path / "a/cgroup.procs").write_text("0\n")
    assert member_pids(tmp_path) is None
