"""What a container cannot see, and the control that would have seen it."""

import os
import subprocess
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.engine import Limits
from anyon.engines.sandboxes import find_tools
from anyon.testing.engine_contract import spec_maker
from anyon.testing.engine_trials import run, sh

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="plants secrets as root")


@pytest.fixture
async def engine(tmp_path):
    """An engine over a home that is hidden."""
    engine = BubblewrapEngine(tmp_path / "engine", hidden=[tmp_path])
    yield engine
    for info in await engine.list():
        await engine.remove(info.project)
    await engine.close()


@pytest.fixture
async def project(engine, tmp_path):
    """A running container."""
    spec = spec_maker(tmp_path)()
    await engine.ensure(spec)
    await engine.start(spec.project)
    return spec.project


@pytest.fixture
def planted(tmp_path):
    """Secrets of the host, in places that no list names; removed afterwards."""
    mark = f"anyon-test-{uuid.uuid4().hex}"
    places = [
        Path("/etc") / mark,
        Path("/root") / mark,
        Path("/run") / mark,
        Path("/var/lib") / mark / "secret",
        Path("/") / mark / "secret",
        tmp_path / "secret",
    ]
    made = []
    for place in places:
        if not place.parent.exists():
            place.parent.mkdir()
            made.append(place.parent)
        place.write_text("planted")
        place.chmod(0o600)
        made.append(place)
    yield places
    for place in reversed(made):
        place.rmdir() if place.is_dir() else place.unlink()


@root_only
async def test_the_hosts_secrets_are_hidden(engine, planted, tmp_path):
    """None of the planted secrets is there; a plain bind of the root (the control) shows them all."""
    spec = spec_maker(tmp_path)()
    await engine.ensure(spec)
    await engine.start(spec.project)
    script = " ".join(f"cat '{place}';" for place in planted) + " true"
    out = await sh(engine, spec.project, script)
    assert b"planted" not in out
    plain = subprocess.run(
        [
            *(find_tools().bwrap, "--ro-bind", "/", "/", "--unshare-pid", "--proc", "/proc"),
            *("sh", "-c", script),
        ],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert plain.stdout.count(b"planted") == len(planted)


@root_only
async def test_the_hosts_passwords_and_sockets_are_hidden(engine, project):
    """Account files have no passwords, and no socket of the host is there."""
    out = await sh(
        engine, project, "cut -d: -f2 /etc/shadow | sort -u; find /run /var/run/ -type s"
    )
    assert out.strip() in (b"*", b"")
    assert await sh(engine, project, "ls -A /root /tmp | grep -v :; true") == b"\n"


@root_only
async def test_root_inside_is_not_root_of_the_machine(engine, project):
    """Kernel settings, control groups, mounts and devices cannot be changed."""
    for script in (
        "echo x >/proc/sys/kernel/domainname",
        "cat /proc/sys/kernel/core_pattern >/proc/sys/kernel/core_pattern",
        "mkdir /sys/fs/cgroup/x || mkdir /sys/fs/cgroup/freezer/x",
        "mount -t tmpfs none /mnt",
        "mknod /opt/disk b 254 0",
    ):
        code, _, err = await run(engine, project, "sh", "-c", script)
        assert code != 0, (script, err)


async def test_programs_see_neither_the_server_nor_its_environment(engine, project, monkeypatch):
    """The environment is built anew, and host processes are not there."""
    monkeypatch.setenv("SERVER_SECRET", "planted-in-environment")
    out = await sh(
        engine, project, "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' ' '"
    )
    assert b"planted-in-environment" not in out
    assert b"pytest" not in out
    assert b"engine" not in out


@pytest.mark.skipif(os.geteuid() != 0, reason="limits need control groups")
async def test_limits_hold(engine, tmp_path):
    """Past its memory a program is killed and counted; past its pids no more are started."""
    health = await engine.health()
    if "none" in health.detail["control_groups"]:
        assert not os.environ.get("CI"), health
        pytest.skip("no control groups here")
    limits = Limits(memory_bytes=64 * 1024 * 1024, pids=40, cpus=1.5)
    spec = replace(spec_maker(tmp_path)(), limits=limits)
    await engine.ensure(spec)
    await engine.start(spec.project)
    hungry = "head -c 300000000 /dev/zero | tail -c 290000000 | wc -c; kill -0 $$"
    _, out, _ = await run(engine, spec.project, "sh", "-c", hungry)
    assert out.strip() != b"290000000"
    stats = await engine.stats(spec.project)
    assert stats is not None
    assert stats.oom_kills >= 1
    bomb = "i=0; while [ $i -lt 100 ]; do sleep 30 >/dev/null 2>&1 & i=$((i+1)); done; echo all started"
    code, out, err = await run(engine, spec.project, "sh", "-c", bomb)
    assert b"all started" not in out, (code, err)
    stats = await engine.stats(spec.project)
    assert stats is not None
    assert stats.pids <= 40
    await engine.stop(spec.project, grace=timedelta(seconds=1))
    again = await engine.start(spec.project)
    assert again.pid


async def test_a_deep_tree_of_locked_directories_is_removed(engine, project):
    """What was installed is removed whatever its depth and modes."""
    script = (
        "mkdir -p /opt/t && cd /opt/t && i=0; while [ $i -lt 300 ]; do "
        "mkdir d && cd d && i=$((i+1)); done; chmod 000 /opt/t/d/d/d /opt/t/d"
    )
    await sh(engine, project, script)
    await engine.remove(project)
    assert await engine.inspect(project) is None
