"""What doctor finds on a machine, and what it says to do."""

from dataclasses import replace
from pathlib import Path

import pytest

from anyon.config import Settings, load
from anyon.db.databases import Database
from anyon.wiring import findings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose home is this test's own."""
    return replace(load({"HOME": str(tmp_path)}), home=tmp_path / "home")


async def test_the_database_is_looked_into_and_left_alone(settings: Settings) -> None:
    """Before the first start there is none; then its schema is told; a damaged one is an error with a hint."""
    assert "first start" in findings.database(settings).detail
    path = settings.home / "anyon.db"
    db = Database(path)
    await db.open()
    running = findings.database(settings)
    await db.close()
    before = path.read_bytes()
    found = findings.database(settings)
    assert found.ok, found
    assert "0 projects" in found.detail
    assert running.detail == found.detail
    assert path.read_bytes() == before
    path.write_bytes(b"no database at all" * 100)
    broken = findings.database(settings)
    assert (broken.ok, broken.needed) == (False, True)
    assert broken.hint
    assert path.read_bytes() == b"no database at all" * 100


def test_cgroups_of_both_versions(tmp_path: Path) -> None:
    """What limits containers is named, and what does not hold is told."""
    two = tmp_path / "two"
    two.mkdir()
    (two / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert findings.cgroup(two).ok
    (two / "cgroup.controllers").write_text("cpuset cpu io\n")
    short = findings.cgroup(two)
    assert not short.ok
    assert "memory, pids" in short.hint
    one = tmp_path / "one"
    for name in ("cpu,cpuacct", "memory", "pids", "freezer"):
        (one / name).mkdir(parents=True)
    assert findings.cgroup(one).detail == "version 1: cpu, freezer, memory, pids"
    assert not findings.cgroup(tmp_path / "none").ok


@pytest.mark.parametrize(
    ("agent", "environment", "ok", "words"),
    [
        ("SHELL", {}, True, ""),
        ("claude-code", {}, False, "ANTHROPIC_API_KEY"),
        ("CLAUDE_CODE", {"ANTHROPIC_API_KEY": "x"}, True, ""),
        ("NO_SUCH", {}, False, "Known agents"),
    ],
)
def test_the_default_agent_needs_its_key(
    *,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    agent: str,
    environment: dict[str, str],
    ok: bool,
    words: str,
) -> None:
    """A missing key or an agent that does not exist is told with what to set."""
    for name in ("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = findings.agents(replace(settings, default_agent=agent))
    assert found.ok is ok
    assert words in found.hint


def test_missing_programs_and_packages_are_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Monitoring's packages are named; traces are needed only where they are switched on."""
    monkeypatch.setenv("PATH", str(tmp_path))
    found = findings.monitoring()
    assert not found.ok
    assert "apt-get install prometheus" in found.hint
    off = findings.traces(settings)
    assert (off.ok, off.needed) == (True, False)
    on = findings.traces(replace(settings, traces_endpoint="http://x/v1/traces"))
    assert on.ok
    assert on.needed


def test_a_server_is_known_by_its_process(settings: Settings) -> None:
    """A file that a dead server left says nothing."""
    settings.home.mkdir()
    assert findings.server(settings).detail == "not running"
    (settings.home / "server.json").write_text('{"pid": 1, "address": "a:1"}')
    assert findings.server(settings).detail == "process 1 at a:1"
    (settings.home / "server.json").write_text('{"pid": 999999999, "address": "a:1"}')
    assert findings.server(settings).detail == "not running"
    (settings.home / "server.json").write_text("nonsense")
    assert findings.server(settings).detail == "not running"


def test_the_machine_is_described() -> None:
    """Memory, files and watches say what there is."""
    assert "GiB" in findings.memory().detail
    assert "may be open" in findings.limits().detail
    assert findings.watches().detail
