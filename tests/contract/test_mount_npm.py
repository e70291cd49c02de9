"""What npm can and cannot do on a mounted bucket, as the operator's guide says; every package is a local archive."""

import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.mount_fixtures import missing, mounter_or_skip

from anyon.testing.mount_trials import mount_trial
from anyon.testing.mounter_contract import PATIENCE, MounterTrial

pytestmark = pytest.mark.timeout(600)
POSTINSTALL = "printf '#!/bin/sh\\necho built >built\\n' >make.sh && chmod +x make.sh && ./make.sh"


@dataclass(frozen=True, slots=True)
class Npm:
    """npm in one directory, with a cache of its own, no network and packages from *archives*."""

    place: Path
    archives: Path
    cache: Path
    seconds: dict[str, float] = field(default_factory=dict)

    def wants(self, *, dev: str = "hello", **packages: str) -> None:
        """Write the project's ``package.json``: what it depends on, by name and version."""
        dependencies = {
            name: f"file:{self.archives}/{name}-{version}.tgz" for name, version in packages.items()
        }
        whole = {"name": "site", "version": "1.0.0", "scripts": {"dev": dev}}
        text = json.dumps(whole | {"dependencies": dependencies})
        (self.place / "package.json").write_text(text)

    def run(self, *words: str, code: int = 0) -> str:
        """Run npm; return what it prints, and keep how long it took."""
        names = ("audit", "fund", "update_notifier")
        env = {f"npm_config_{name}": "false" for name in names}
        env |= {"npm_config_offline": "true", "npm_config_cache": str(self.cache)}
        began = time.monotonic()
        done = subprocess.run(
            ["npm", *words],
            cwd=self.place,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE.total_seconds() * 2,
        )
        self.seconds[words[0]] = time.monotonic() - began
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr


def pack(archives: Path, name: str, version: str, **manifest: Any) -> None:
    """Make a package's archive: a program that says its version, and some files."""
    folder = archives / f"{name}-{version}" / "package"
    (folder / "lib").mkdir(parents=True)
    whole = {"name": name, "version": version, **manifest}
    (folder / "package.json").write_text(json.dumps(whole))
    program = folder / "cli.js"
    program.write_text(f"#!/usr/bin/env node\nconsole.log('hello {version}')\n")
    program.chmod(0o755)
    for number in range(20):
        (folder / "lib" / f"{number}.js").write_text(f"module.exports = {number};\n")
    with tarfile.open(archives / f"{name}-{version}.tgz", "w:gz") as archive:
        archive.add(folder, "package")


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """A program in two versions that depends on another package, and a package that is built when it is installed."""
    if shutil.which("npm") is None:
        missing("npm is not installed")
    place = tmp_path / "archives"
    pack(place, "leaf", "1.0.0")
    leaf: Mapping[str, str] = {"leaf": f"file:{place}/leaf-1.0.0.tgz"}
    for version in ("1.0.0", "2.0.0"):
        pack(place, "hello", version, bin={"hello": "cli.js"}, dependencies=leaf)
    pack(place, "built", "1.0.0", scripts={"postinstall": POSTINSTALL})
    return place


@contextmanager
def project(trial: MounterTrial, archives: Path) -> Iterator[Npm]:
    """Give npm in a project on the mount, its cache on the local disk as the home of a project is."""
    place = trial.spec.place / "사용자" / "site"
    place.mkdir(parents=True)
    yield Npm(place, archives, archives.parent / "cache")


@pytest.mark.parametrize("name", ["gcsfuse", "rclone"])
async def test_what_works_where_files_are_executable(
    tmp_path: Path, archives: Path, name: str
) -> None:
    """Install, run, upgrade, build steps, ci, uninstall, a cache on the mount: as on a disk; a new mount reads it all."""
    mounter = mounter_or_skip(name)
    with mount_trial(mounter, tmp_path, profile="tuned") as trial:
        await mounter.mount(trial.spec)
        with project(trial, archives) as npm:
            modules = npm.place / "node_modules"
            npm.wants(hello="1.0.0")
            npm.run("install")
            assert "hello 1.0.0" in npm.run("run", "dev")
            npm.wants(hello="2.0.0", built="1.0.0")
            npm.run("install")
            assert (modules / "built/built").read_text() == "built\n"
            assert (modules / ".bin/hello").is_symlink()
            there = Npm(npm.place, archives, npm.place / ".npm")
            there.run("ci")  # removes all and installs it anew, its cache beside it
            await mounter.unmount(trial.spec)
            await mounter.mount(trial.spec)
            assert "hello 2.0.0" in npm.run("run", "dev")
            npm.run("uninstall", "hello")
            left = {path.name for path in modules.iterdir() if not path.name.startswith(".")}
            assert left == {"built"}, "what was removed is gone, half removed directories too"
            local = Npm(tmp_path / "local", archives, npm.cache)
            local.place.mkdir()
            local.wants(hello="2.0.0", built="1.0.0")
            local.run("install")
            print(f"{name}: {there.seconds}, on the disk {local.seconds}")


async def test_what_does_not_where_they_are_not(tmp_path: Path, archives: Path) -> None:
    """With the plan's files of 0644 packages are installed, but no program of theirs starts, and no build step."""
    mounter = mounter_or_skip("gcsfuse")
    with mount_trial(mounter, tmp_path, profile="plan") as trial:
        await mounter.mount(trial.spec)
        with project(trial, archives) as npm:
            npm.wants(hello="1.0.0")
            npm.run("install")
            assert (npm.place / "node_modules/leaf/lib/0.js").exists()
            assert "Permission denied" in npm.run("run", "dev", code=127)
            # The way round: node reads what it need not start.
            npm.wants(dev="node node_modules/hello/cli.js", hello="1.0.0")
            assert "hello 1.0.0" in npm.run("run", "dev")
            npm.run("ci")
            npm.run("uninstall", "hello")
            assert not (npm.place / "node_modules/hello").exists()
            npm.wants(built="1.0.0")
            assert "Permission denied" in npm.run("install", code=126)
            assert not (npm.place / "node_modules/built").exists()
