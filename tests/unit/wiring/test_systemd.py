"""systemd's units: verified by systemd itself, hardened, and never somebody's changes overwritten."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from anyon.domain.errors import ConflictError, InvalidInputError
from anyon.wiring import notifications
from anyon.wiring.mount_units import GCSFUSE, RCLONE, MountUnit
from anyon.wiring.systemd import CHECK, MOUNTS, SERVER, TIMER, Plan, install, render, uninstall

SCRIPT = Path(__file__).parents[3] / "scripts" / "services" / "systemd.sh"
MAIN = [sys.executable, "-c", "from anyon.cli.main import main; main()"]
ODD = "/srv/%i odd $HOME \"quoted\" 'too'"


@pytest.fixture(scope="module")
def analyze() -> str:
    """Systemd's own verifier; a machine without it is a skip at home and a failure in CI."""
    if shutil.which("systemd-analyze") is None and os.environ.get("CI"):
        subprocess.run([SCRIPT, "start"], check=True)
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip(f"systemd-analyze is not installed: run {SCRIPT.name} start")
    return found


def plan(
    engine: str = "docker",
    user: str | None = "daemon",
    home: str = "/var/lib/anyon",
    *,
    mounter: str | None = None,
) -> Plan:
    """What a test installs; /bin/true is a program that is there."""
    true, at = Path("/bin/true"), Path(home)
    mount = MountUnit(
        program=true,
        unmounter=true,
        bucket="anyon-projects",
        place=at / "projects-gcs",
        config=at / "mount" / "gcsfuse.yaml",
        profile="plan",
        mounter=mounter or "gcsfuse",
    )
    return Plan(
        program=true, home=at, engine=engine, user=user, uid=1, mount=mount if mounter else None
    )


def verified(
    analyze: str, directory: Path, *, user: bool = False
) -> "subprocess.CompletedProcess[str]":
    """Ask systemd what it thinks of the units in a directory."""
    command = [analyze, "verify", "--man=no", *(["--user"] if user else [])]
    names = [name for name in (SERVER, CHECK, TIMER, *MOUNTS) if (directory / name).exists()]
    runtime = directory / "runtime"
    runtime.mkdir(exist_ok=True, mode=0o700)
    return subprocess.run(
        [*command, *(str(directory / name) for name in names)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
    )


@pytest.mark.parametrize("user", ["daemon", "root", None])
@pytest.mark.parametrize("engine", ["docker", "bubblewrap"])
def test_systemd_takes_the_units(
    analyze: str, tmp_path: Path, engine: str, user: str | None
) -> None:
    """`systemd-analyze verify` has nothing to say on any of them."""
    install(tmp_path, render(plan(engine, user)))
    done = verified(analyze, tmp_path, user=user is None)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_broken_unit_is_seen(analyze: str, tmp_path: Path) -> None:
    """The check above is not blind: a wrong setting and a missing program are told."""
    install(tmp_path, render(plan()))
    text = (tmp_path / SERVER).read_text()
    (tmp_path / SERVER).write_text(text.replace("KillMode=mixed", "KillMode=gently"))
    assert "gently" in verified(analyze, tmp_path).stderr
    (tmp_path / SERVER).write_text(text.replace("/bin/true", "/bin/no-such-program"))
    assert verified(analyze, tmp_path).returncode != 0


def test_the_server_in_docker_is_confined(analyze: str, tmp_path: Path) -> None:
    """Systemd rates the exposure of the hardened unit at 2.0 or less; negative control: the other one's."""

    def exposure(engine: str) -> float:
        install(tmp_path, render(plan(engine)), force=True)
        done = subprocess.run(
            [analyze, "security", "--offline=true", "--no-pager", tmp_path / SERVER],
            capture_output=True,
            text=True,
            check=False,
        )
        found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
        assert found, done.stdout + done.stderr
        return float(found[1])

    assert exposure("docker") <= 2.0
    assert exposure("bubblewrap") > 5.0


def test_sandboxes_outlive_the_server() -> None:
    """Stopping the unit ends the server only, and denies sandboxes nothing that they need."""
    text = render(plan("bubblewrap"))[SERVER]
    assert "KillMode=process" in text
    for setting in (
        "RestrictNamespaces",
        "SystemCallFilter",
        "NoNewPrivileges",
        "UMask",
        "Protect",
    ):
        assert setting not in text
    assert "RestrictNamespaces=yes" in render(plan("docker"))[SERVER]


def test_a_home_that_protection_would_hide() -> None:
    """What lies below /home or /root stays visible to the server."""
    assert "ProtectHome=read-only" in render(plan(home="/home/me/anyon"))[SERVER]
    assert "ProtectHome=yes" in render(plan())[SERVER]


def test_odd_paths_stay_one_word(analyze: str, tmp_path: Path) -> None:
    """Blanks, quotes, dollars and specifiers of a path mean nothing to systemd; control characters are refused."""
    install(tmp_path, render(plan(home=ODD)))
    done = verified(analyze, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'ReadWritePaths="/srv/%%i odd $HOME \\"quoted\\"' in (tmp_path / SERVER).read_text()
    with pytest.raises(InvalidInputError):
        render(plan(home="/srv/a\nExecStartPre=/bin/evil"))


def test_installing_twice_changes_nothing(tmp_path: Path) -> None:
    """A repeat writes nothing; another plan updates; no temporary file is left."""
    assert len(install(tmp_path, render(plan()))) == 3
    assert install(tmp_path, render(plan())) == []
    assert SERVER in install(tmp_path, render(plan("bubblewrap")))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([SERVER, CHECK, TIMER])


def test_what_somebody_changed_stays(tmp_path: Path) -> None:
    """A unit changed by hand is neither overwritten nor removed, and nothing else is; --force does both."""
    install(tmp_path, render(plan()))
    (tmp_path / CHECK).write_text((tmp_path / CHECK).read_text() + "Nice=5\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConflictError):
        install(tmp_path, render(plan("bubblewrap")))
    with pytest.raises(ConflictError):
        uninstall(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert len(uninstall(tmp_path, force=True)) == 3


def run(*arguments: str, home: Path) -> "subprocess.CompletedProcess[str]":
    """Run the command line."""
    bare = {key: value for key, value in os.environ.items() if not key.startswith("ANYON_")}
    return subprocess.run(
        [*MAIN, "install", "systemd", *arguments],
        env=bare | {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command(tmp_path: Path) -> None:
    """--print writes nothing; installing, repeating, removing; the data stays."""
    data = tmp_path / ".local" / "share" / "anyon" / "anyon.db"
    data.parent.mkdir(parents=True)
    data.write_text("data")
    options: Sequence[str] = ["--user", "--engine", "bubblewrap"]
    before = sorted(tmp_path.rglob("*"))
    done = run(*options, "--print", home=tmp_path)
    assert "KillMode=process" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before
    done = run(*options, "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    units = tmp_path / ".config" / "systemd" / "user"
    assert json.loads(done.stdout) == {"directory": str(units), "written": [SERVER, CHECK, TIMER]}
    assert "Nothing had to be done" in run(*options, home=tmp_path).stdout
    assert (
        len(json.loads(run("--user", "--uninstall", "--json", home=tmp_path).stdout)["removed"])
        == 3
    )
    assert list(units.iterdir()) == []
    assert data.read_text() == "data"


def test_the_server_needs_no_writable_code() -> None:
    """What the unit denies (memory both writable and executable) the server's imports do without."""
    code = (
        "import ctypes, os, sys\n"
        "if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(77)\n"
        "os.execv(sys.executable, [sys.executable, '-c', 'import anyon.wiring.serve'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("user", ["daemon", "root", None])
@pytest.mark.parametrize("mounter", ["gcsfuse", "rclone"])
def test_the_mounts_unit_is_the_plans_corrected(
    analyze: str, tmp_path: Path, mounter: str, user: str | None
) -> None:
    """After the network, again 10 s after a failure, unmounted at the stop; before the server; systemd takes it."""
    name, other = (RCLONE, GCSFUSE) if mounter == "rclone" else (GCSFUSE, RCLONE)
    units = render(plan(user=user, mounter=mounter))
    install(tmp_path, units)
    checked = verified(analyze, tmp_path, user=user is None)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    text = units[name]
    for line in ("Restart=on-failure", "RestartSec=10", "mount wait", f"Conflicts={other}"):
        assert line in text
    if mounter == "gcsfuse":
        assert "mount prepare" in text
        assert 'ExecStop="/bin/true" -u "/var/lib/anyon/projects-gcs"' in text
    else:
        assert 'ExecStart="/bin/true" mount run --program "/bin/true"' in text
        assert 'ExecStop="/bin/true" mount down' in text
    assert "--enable-storage-client-library" not in text
    assert f"After={'network-online.target docker.service ' if user else ''}{name}" in units[SERVER]
    assert ("User=daemon" in text) is (user == "daemon")
    assert ("Wants=network-online.target" in text) is (user is not None)
    assert list(uninstall(tmp_path)) == [SERVER, CHECK, TIMER, name]
    assert not set(MOUNTS) & set(render(plan(user=user)))


async def test_systemd_hears_that_the_server_turns(tmp_path: Path) -> None:
    """Words reach the manager's socket; the loop is as quick as need be; without a manager nothing happens."""
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(30)
        env = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "60000000"}
        assert notifications.notify("READY=1", env)
        assert manager.recv(100) == b"READY=1"
        loop = notifications.watchdog(env)
        assert loop is not None
        assert loop.interval.total_seconds() == 20
        await loop.tick()
        assert manager.recv(100) == b"WATCHDOG=1"
    assert not notifications.notify("READY=1", {})
    assert not notifications.notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert notifications.watchdog({}) is None
    assert notifications.watchdog({"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}) is None


def test_the_check_may_open_as_many_files_as_the_server() -> None:
    """Else it would tell every hour of a limit that is not the server's."""
    for engine in ("docker", "bubblewrap"):
        units = render(plan(engine))
        (limit,) = {
            line
            for name in (SERVER, CHECK)
            for line in units[name].splitlines()
            if line.startswith("LimitNOFILE=")
        }
        assert all(limit in units[name] for name in (SERVER, CHECK))


def test_only_rclones_own_end_is_a_success() -> None:
    """It ends with 143 when it is stopped; gcsfuse, which does not, gets no such excuse."""
    assert "SuccessExitStatus=143" in render(plan(mounter="rclone"))[RCLONE]
    assert "SuccessExitStatus" not in render(plan(mounter="gcsfuse"))[GCSFUSE]
