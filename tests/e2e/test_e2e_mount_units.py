"""The commands of systemd's units for a mount, run in systemd's order over an emulator: there is no systemd to start here."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.mount_fixtures import gcsfuse_program, mounter_or_skip

from anyon.storage.buckets import Wanted, make_ready
from anyon.testing.gcs_emulator import running
from anyon.testing.mount_trials import BUCKET, stored, tidy
from anyon.wiring.mount_units import GCSFUSE, RCLONE
from anyon.wiring.systemd import SERVER

PATIENCE = 120.0
ANYON = Path(sys.executable).with_name("anyon")


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit's commands and environment, as systemd would read them: words in double quotes."""

    text: str

    def commands(self, key: str) -> Sequence[Sequence[str]]:
        """Return the words of each command of that key."""
        return [
            [word.replace("$$", "$").replace("%%", "%") for word in shlex.split(line)]
            for line in self._values(key)
        ]

    @property
    def environment(self) -> dict[str, str]:
        """What the unit sets."""
        words = [shlex.split(line)[0].replace("%%", "%") for line in self._values("Environment")]
        return dict(word.split("=", 1) for word in words)

    def _values(self, key: str) -> list[str]:
        lines = self.text.splitlines()
        return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("mounter", "name"), [("gcsfuse", GCSFUSE), ("rclone", RCLONE)])
def test_the_units_commands_mount_and_unmount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounter: str, name: str
) -> None:
    """Started twice, the second time over what a killed one left; what was written is in the bucket; the stop is clean."""
    mounter_or_skip(mounter)
    monkeypatch.setenv("PATH", f"{Path(gcsfuse_program()).parent}:{os.environ['PATH']}")
    home = tmp_path / "집 $HOME"
    place = home / "projects-gcs"
    monkeypatch.setenv("ANYON_HOME", str(home))
    run(ANYON, "mount", "use", mounter, "--bucket", f"gs://{BUCKET}")
    shown = run(
        ANYON, "install", "systemd", "--user", "--engine", "bubblewrap", "--print", "--json"
    )
    units = json.loads(shown)["units"]
    assert f'"ANYON_STORAGE={mounter}"' in units[SERVER]
    assert '"ANYON_MOUNT_EXTERNALLY=true"' in units[SERVER]
    unit = Unit(units[name])
    with running() as emulator:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
        make_ready(Wanted(name=BUCKET, location="asia-northeast3", project=None))
        for variable, value in unit.environment.items():
            monkeypatch.setenv(variable, value)
        try:
            for life in ("killed", "stopped"):
                main = started(unit)
                assert json.loads(run(ANYON, "mount", "status", "--json"))["state"] == "alive"
                if life == "killed":
                    main.kill()
                    main.wait(PATIENCE)
                    continue
                (place / "한글.txt").write_text("hello\n")
                for words in unit.commands("ExecStop"):
                    run(*words)
                assert main.wait(PATIENCE) == 0
                assert not os.path.ismount(place)
                assert stored(emulator.url, BUCKET, "한글.txt") == b"hello\n"
        finally:
            tidy(place)


def started(unit: Unit) -> "subprocess.Popen[bytes]":
    """Run what comes before, the unit's own process, and what comes after; return the process."""
    for words in unit.commands("ExecStartPre"):
        may_fail = words[0].startswith("-")
        run(words[0].removeprefix("-"), *words[1:], must=not may_fail)
    [words] = unit.commands("ExecStart")
    main = subprocess.Popen(words)
    for words in unit.commands("ExecStartPost"):
        run(*words)
    assert main.poll() is None, "the unit's process stays in the foreground"
    return main


def run(*words: str | Path, must: bool = True) -> str:
    """Run a command to its end, and return what it says."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert not must or done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout
