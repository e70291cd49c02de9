"""Processes are known by pid and start time."""

import os
import subprocess
from dataclasses import replace

from anyon.engines.sandbox_processes import identify, lives, members, parse_stat

LINE = (
    "4242 (a) b (x) S 17 4242 4242 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 "
    "987654 1000000 300 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0\n"
)


def test_a_name_with_brackets():
    """The name may hold anything: what counts comes after the last bracket."""
    found = parse_stat(LINE)
    assert (found.pid, found.state, found.parent, found.started_ticks) == (4242, "S", 17, 987654)
    assert found.cpu_seconds == 300 / os.sysconf("SC_CLK_TCK")
    assert found.memory_bytes == 300 * os.sysconf("SC_PAGE_SIZE")


def test_a_pid_used_again_is_another_process():
    """Start time and boot belong to an identity."""
    me = identify(os.getpid())
    assert me is not None
    assert lives(me)
    assert not lives(replace(me, started_ticks=me.started_ticks - 1))
    assert not lives(replace(me, boot="another"))


def test_a_zombie_is_over():
    """A process that only waits to be collected is not running."""
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert identify(child.pid) is None
    child.wait()


def test_the_hosts_own_namespace_has_no_members():
    """A first process that is none of a sandbox never stands for all of the host's processes."""
    me = identify(os.getpid())
    assert me is not None
    assert members(me) == []
    child = subprocess.Popen(["sleep", "600"])
    found = identify(child.pid)
    child.kill()
    child.wait()
    assert found is not None
    assert members(found) == []
