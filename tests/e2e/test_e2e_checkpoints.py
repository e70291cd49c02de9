"""The past of a project by hand: every command on checkpoints and the store, on a real server."""

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.test_e2e_cli import DEADLINE, MAIN, Machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine whose server runs."""
    one = Machine(tmp_path)
    one.start()
    yield one
    assert one.stop() == 0, (tmp_path / "server.log").read_text()


def run(machine: Machine, script: str) -> None:
    """Run a script in the project, and let its hold go."""
    machine.anyon("exec", "shop", "--", "sh", "-c", script)


def test_the_past_by_hand(machine: Machine, tmp_path: Path) -> None:
    """Save, look, compare, download, go back in part and in whole, fork, prove: with and without --json."""
    machine.anyon("project", "create", "shop")
    run(
        machine,
        "echo one > '한글 파일'; mkdir d; printf 1 > \"$(printf 'd/\\377odd')\"; seq 9999 > big",
    )
    first = machine.json("checkpoint", "create", "shop")["id"]
    run(machine, "echo two > '한글 파일'; rm -r d; echo new > new")
    assert "saved" in machine.anyon("checkpoint", "create", "shop").stdout
    listed = machine.json("checkpoint", "list", "shop")
    assert first in [one["id"] for one in listed]
    assert machine.json("checkpoint", "show", "shop", first)["borrowed_packs"] == 0
    assert "workspace" in machine.anyon("checkpoint", "show", "shop", "latest").stdout
    assert (
        "workspace/한글 파일"
        in machine.anyon("checkpoint", "browse", "shop", first, "workspace").stdout
    )
    [odd] = machine.json("checkpoint", "browse", "shop", first, "workspace/d")
    assert odd["path"] == "workspace/d/%FFodd"
    assert machine.anyon("checkpoint", "cat", "shop", first, odd["path"]).stdout == "1"
    changed = machine.anyon("checkpoint", "diff", "shop", "latest", "--since", first).stdout
    lines = changed.splitlines()
    assert {"~ workspace/한글 파일", "- workspace/d/%FFodd", "+ workspace/new"} <= set(lines)
    text = machine.anyon(
        "checkpoint", "diff", "shop", "latest", "--since", first, "--path", "workspace/한글 파일"
    ).stdout
    assert "-one\n+two" in text
    downloads(machine, tmp_path, first)
    back(machine, first)
    fork = machine.json("checkpoint", "fork", "shop", first, "experiment")
    assert fork["phase"] == "archived"
    assert machine.anyon("exec", "experiment", "--", "cat", "한글 파일").stdout == "one\n"
    machine.anyon("checkpoint", "restore", "shop", first, "--as", "another")
    machine.anyon("project", "delete", "shop", "--yes")
    assert machine.anyon("exec", "another", "--", "cat", "한글 파일").stdout == "one\n"
    upkeep(machine)


def downloads(machine: Machine, tmp_path: Path, first: str) -> None:
    """Download a file, go on with a broken download, and take a directory as an archive."""
    target = tmp_path / "got"
    machine.anyon("checkpoint", "download", "shop", first, "workspace/big", "-o", str(target))
    whole = target.read_bytes()
    assert whole.endswith(b"9999\n")
    assert (
        machine.anyon(
            "checkpoint", "download", "shop", first, "workspace/big", "-o", str(target), check=False
        ).returncode
        == 2
    )
    done = subprocess.run(
        [*MAIN, "checkpoint", "download", "shop", first, "workspace/d/%FFodd"],
        env=machine.environment,
        cwd=tmp_path,
        capture_output=True,
        timeout=DEADLINE,
        check=True,
    )
    assert done.stdout
    assert Path(os.fsdecode(bytes(tmp_path) + b"/\xffodd")).read_text() == "1"
    machine.anyon("checkpoint", "download", "shop", first, "-o", str(tmp_path / "all.tar"))
    with tarfile.open(tmp_path / "all.tar", errors="surrogateescape") as archive:
        assert "workspace/한글 파일" in archive.getnames()
    refused = machine.anyon(
        "checkpoint", "cat", "shop", first, "workspace/../../etc/passwd", "--", check=False
    )
    assert refused.returncode != 0


def back(machine: Machine, first: str) -> None:
    """Bring one path back, then all; while something runs only by force."""
    machine.anyon("checkpoint", "restore", "shop", first, "--path", "workspace/d/%FFodd")
    run(machine, "test -e d && test $(cat '한글 파일') = two")
    background = subprocess.Popen(
        [*MAIN, "exec", "shop", "--", "sleep", "1000"],
        env=machine.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not machine.json("project", "why", "shop")["leases"]:
            assert background.poll() is None
        refused = machine.anyon("checkpoint", "restore", "shop", first, check=False)
        assert (refused.returncode, "project_busy" in refused.stderr) == (5, True)
        machine.anyon("checkpoint", "restore", "shop", first, "--force")
        background.wait(DEADLINE)
    finally:
        background.kill()
        background.wait()
    run(machine, "test $(cat '한글 파일') = one && test ! -e new")


def upkeep(machine: Machine) -> None:
    """Show, check, collect and prove; then damage a pack: it is named, and where it is whole."""
    usage = {one["project"]: one for one in machine.json("storage", "usage")}
    assert usage["experiment"]["proven_at"] is None
    assert usage["experiment"]["borrowed_bytes"] > 0
    assert "whole" in machine.anyon("storage", "verify", "--all", "--bytes").stdout
    assert "removed" in machine.anyon("storage", "collect", "experiment").stdout
    assert "proven" in machine.anyon("storage", "drill", "--all").stdout
    assert machine.json("storage", "usage", "experiment")[0]["proven_at"] is not None
    run_in = ["exec", "experiment", "--", "sh", "-c"]
    before = set((machine.home / "anyon/store").rglob("*"))
    machine.anyon(*run_in, "seq 5000 > hit")
    machine.anyon("checkpoint", "create", "experiment")
    packs = [
        one
        for one in set((machine.home / "anyon/store").rglob("*")) - before
        if one.is_file() and "packs+" in one.parts
    ]
    for pack in packs:
        data = bytearray(pack.read_bytes())
        data[30] ^= 1
        pack.write_bytes(bytes(data))
    seen = machine.anyon("storage", "verify", "experiment", "--bytes", "--json", check=False)
    assert seen.returncode == 1
    named = {one["path"]: one["intact"] for one in json.loads(seen.stdout)[0]["damaged"]}
    assert named
    failed = machine.anyon("storage", "drill", "experiment", check=False)
    assert (failed.returncode, "NOT PROVEN" in failed.stdout) == (1, True)
    assert machine.anyon("storage", "verify", check=False).returncode == 2
