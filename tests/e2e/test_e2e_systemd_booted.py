"""The units under a real systemd, in a machine that boots: ready, confined, restarted, mounted, removed.

The short form is CI's; `./test systemd` runs it whole.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.booted_machines import ROOT, Machine, booted
from tests.mount_fixtures import gcsfuse_program, missing, mounter_or_skip, rclone_program

from anyon.testing import gcs_emulator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
in_full = pytest.mark.skipif(
    os.environ.get("ANYON_SYSTEMD") != "full", reason="longer: ./test systemd runs it"
)

SERVER, TIMER, CHECK = "anyon-server", "anyon-check.timer", "anyon-check.service"
HEALTH = "curl -sf http://127.0.0.1:8080/api/health"
HOME = "/var/lib/anyon"
EMULATOR = "http://127.0.0.1:4443"
SLEEPER = "sleep 987654"
PORT_TAKEN = "ss -Hltn sport = :8080"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted machine; without root or its image a skip at home, a failure in CI."""
    if os.geteuid() != 0:
        missing("a machine that boots systemd is made by root")
    script = ROOT / "scripts" / "services" / "systemd_image.sh"
    made = subprocess.run(
        [script, "start"], capture_output=True, text=True, timeout=400, check=False
    )
    if made.returncode != 0:
        missing(f"the image of a machine could not be made: {made.stderr[-2000:]}")
    # Below /var/lib, as an operator's: confined services see neither /home nor /tmp.
    shared = Path(tempfile.mkdtemp(prefix="anyon-booted-", dir="/var/lib"))
    try:
        with booted(made.stdout.strip(), tmp_path_factory.mktemp("wheel"), shared) as up:
            up.run(f"useradd --system --home-dir {HOME} --shell /usr/sbin/nologin anyon")
            yield up
    finally:
        _remove_containers(shared)
        shutil.rmtree(shared)


def _remove_containers(shared: Path) -> None:
    """Remove what the server made on the host's engine: only what mounts *shared*."""
    filters = ["--filter", "label=dev.anyon.project", "--format", "{{.ID}}"]
    listed = subprocess.run(
        ["docker", "ps", "-aq", *filters], capture_output=True, text=True, check=True
    )
    for container in listed.stdout.split():
        shown = subprocess.run(
            ["docker", "inspect", container], capture_output=True, text=True, check=False
        )
        if str(shared) in shown.stdout:
            subprocess.run(["docker", "rm", "-f", "-v", container], check=True, capture_output=True)


@pytest.fixture
def installed(machine: Machine) -> Machine:
    """A machine on which the units of a server with bubblewrap run, from the test before or new."""
    if machine.run(f"systemctl is-active {SERVER} {TIMER}", must=False) != "active\nactive":
        cleared(machine)
        machine.run("anyon install systemd --engine bubblewrap && systemctl daemon-reload")
        machine.run(f"systemctl enable --now {SERVER} {TIMER}")
    return machine


def cleared(machine: Machine) -> None:
    """Remove the units, their drop-ins, what they left running, and the data."""
    machine.run(
        f"systemctl disable --now {SERVER} {TIMER}; anyon install systemd --uninstall;"
        " rm -rf /etc/systemd/system/anyon-*.d; systemctl daemon-reload; systemctl reset-failed;"
        f" pkill -9 -u anyon; rm -rf {HOME}",
        must=False,
    )


def has_sleeper(machine: Machine) -> str:
    """Return the pid of the long process, or nothing."""
    return machine.run(f"pgrep -fx '{SLEEPER}'", must=False)


def confinement(machine: Machine) -> dict[str, str]:
    """Return what the kernel says of the server's process."""
    said = machine.run(f"cat /proc/{machine.pid(SERVER)}/status")
    return dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)


def test_active_means_that_the_first_call_is_answered(installed: Machine) -> None:
    """`systemctl start` comes back when the port listens: the next command needs no second try."""
    installed.run(f"systemctl restart {SERVER} && {HEALTH}")
    assert installed.shows(SERVER, "ActiveState") == "active"
    assert installed.shows(SERVER, "Type") == "notify"


@in_full
def test_a_server_without_its_port_never_becomes_active(installed: Machine) -> None:
    """The control of the former: what systemd calls active is not merely a process that was started."""
    installed.run(f"systemctl stop {SERVER}")
    installed.run("systemd-run -q --unit=occupant python3 -m http.server 8080 --bind 127.0.0.1")
    try:
        installed.waits_for("the port is taken", lambda: bool(installed.run(PORT_TAKEN)))
        installed.fails(f"systemctl start {SERVER}")
        assert installed.shows(SERVER, "ActiveState") != "active"
    finally:
        installed.run("systemctl stop occupant")
    installed.waits_for(
        "it comes back by itself", lambda: installed.shows(SERVER, "ActiveState") == "active"
    )


def test_work_goes_on_through_a_restart_a_kill_and_a_stop(installed: Machine) -> None:
    """The main process is ended in each way; systemd brings it back, and a program inside never notices."""
    installed.run(f"anyon project create demo && anyon exec demo -d -- {SLEEPER}")
    sleeper = has_sleeper(installed)
    assert sleeper.isdecimal()
    installed.run(f"systemctl restart {SERVER}")
    assert has_sleeper(installed) == sleeper
    killed = installed.pid(SERVER)
    installed.run(f"kill -9 {killed}")
    installed.waits_for("it comes back by itself", lambda: installed.pid(SERVER) not in {0, killed})
    installed.waits_for("it answers", lambda: bool(installed.run(HEALTH, must=False)))
    installed.run(f"systemctl stop {SERVER}")
    assert has_sleeper(installed) == sleeper
    installed.run(f"systemctl start {SERVER}")
    assert "held by" in installed.run("anyon project why demo")
    assert installed.run("anyon exec demo -- echo works") == "works"
    installed.run(f"pkill -fx '{SLEEPER}'")


@in_full
def test_another_kill_mode_would_have_ended_it(installed: Machine) -> None:
    """The control of the former: what the unit says of kills is what the program lives by."""
    installed.run(f"anyon project create ended && anyon exec ended -d -- {SLEEPER}")
    assert has_sleeper(installed)
    installed.write(
        f"/etc/systemd/system/{SERVER}.service.d/control.conf",
        "[Service]\nKillMode=control-group\n",
    )
    installed.run(f"systemctl daemon-reload && systemctl restart {SERVER}")
    assert not has_sleeper(installed)
    cleared(installed)


def test_a_server_with_bubblewrap_is_not_confined(installed: Machine) -> None:
    """The control of the confinement with Docker: the same looks show the difference, so they look at the right process."""
    status = confinement(installed)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "0")
    root = f"/proc/{installed.pid(SERVER)}/root"
    installed.run(f"touch {root}/etc/written && rm /etc/written")


def test_the_check_runs_by_its_timer(installed: Machine) -> None:
    """Started by hand it succeeds and finds the server; its timer is due, and fires when its time has come."""
    installed.run(f"systemctl start {CHECK}")
    assert installed.shows(CHECK, "Result") == "success"
    said = installed.run(f"journalctl -u {CHECK} -o cat --no-pager")
    lines = {line.split()[1]: line.split()[0] for line in said.splitlines() if "\t" in line}
    assert [lines[name] for name in ("home", "port", "server", "files", "engine")] == ["ok"] * 5
    assert "anyon-check.timer" in installed.run("systemctl list-timers --no-pager")
    was = installed.shows(CHECK, "ExecMainStartTimestampMonotonic")
    installed.write(
        f"/etc/systemd/system/{TIMER}.d/soon.conf",
        "[Timer]\nOnActiveSec=1s\nAccuracySec=100ms\nRandomizedDelaySec=0\n",
    )
    installed.run(f"systemctl daemon-reload && systemctl restart {TIMER}")
    installed.waits_for(
        "the timer fires", lambda: installed.shows(CHECK, "ExecMainStartTimestampMonotonic") != was
    )
    installed.waits_for(
        "the check ends well", lambda: installed.shows(CHECK, "ActiveState") == "inactive"
    )
    assert installed.shows(CHECK, "Result") == "success"


def test_removed_units_leave_the_data(installed: Machine) -> None:
    """Uninstalled, systemd knows nothing of Anyon any more, and everything it kept is there."""
    installed.run(f"systemctl disable --now {SERVER} {TIMER}")
    before = installed.run(f"ls {HOME}")
    installed.run("anyon install systemd --uninstall && systemctl daemon-reload")
    listed = installed.run("systemctl list-unit-files --no-legend 'anyon*'", must=False)
    assert not listed
    installed.fails(f"systemctl start {SERVER}")
    assert installed.run(f"ls {HOME}") == before
    assert "anyon.db" in before.split()


def test_the_confinement_holds_and_docker_works_in_it(machine: Machine) -> None:
    """With Docker the server has no power, no system to write and its own home only; projects work all the same."""
    gid = machine.run("stat -L -c %g /run/docker.sock")
    machine.run(
        f"groupadd --non-unique --gid {gid} docker && usermod --append --groups docker anyon"
    )
    home = machine.shared
    cleared(machine)
    machine.run(f"anyon install systemd --engine docker --home {home} && systemctl daemon-reload")
    try:
        machine.run(f"systemctl start {SERVER} && {HEALTH}")
        status = confinement(machine)
        assert {status[f"Cap{kind}"] for kind in ("Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert (status["NoNewPrivs"], status["Seccomp"], status["Umask"]) == ("1", "2", "0077")
        assert "0" not in status["Uid"].split()
        root = f"/proc/{machine.pid(SERVER)}/root"
        for place in ("/etc", "/usr", "/var/lib", "/opt", "/sys/fs/cgroup"):
            assert "Read-only file system" in machine.fails(f"touch {root}{place}/written")
        machine.run(f"touch {root}{home}/written && rm {home}/written")
        machine.run("touch /tmp/others")
        machine.fails(f"ls {root}/tmp/others")
        machine.fails(f"ls {root}/dev/fuse")
        machine.run("anyon project create confined")
        assert machine.run("anyon exec confined -- echo works") == "works"
        machine.run("anyon exec confined -d -- sleep 600")
        machine.run(f"systemctl restart {SERVER}")
        assert "command" in machine.run("anyon project why confined")
    finally:
        cleared(machine)


@in_full
def test_a_users_own_manager_runs_it(machine: Machine) -> None:
    """`--user`: written, started and ready under the user's own systemd, without root."""
    machine.run("useradd --create-home --shell /bin/sh dev && loginctl enable-linger dev")
    uid = machine.run("id -u dev")
    machine.waits_for(
        "the user's manager is up",
        lambda: machine.run(f"systemctl is-active user@{uid}", must=False) == "active",
    )
    as_dev = (
        f"cd /home/dev && runuser -u dev -- env XDG_RUNTIME_DIR=/run/user/{uid} ANYON_PORT=8090"
    )
    try:
        machine.run(f"{as_dev} anyon install systemd --user --engine bubblewrap")
        machine.run(f"{as_dev} systemctl --user daemon-reload")
        machine.run(f"{as_dev} systemctl --user enable --now {SERVER} {TIMER}")
        machine.run("curl -sf http://127.0.0.1:8090/api/health")
        assert machine.run(f"{as_dev} systemctl --user is-active {SERVER} {TIMER}") == (
            "active\nactive"
        )
        assert f"{SERVER}.service" in machine.run(f"{as_dev} ls .config/systemd/user").split()
        machine.run(f"{as_dev} systemctl --user disable --now {SERVER} {TIMER}")
        machine.run(f"{as_dev} anyon install systemd --user --uninstall")
    finally:
        machine.run("loginctl disable-linger dev; loginctl terminate-user dev", must=False)


@pytest.fixture
def bucket(machine: Machine) -> Iterator[str]:
    """A bucket in an emulator that is a service of the machine."""
    program = gcs_emulator.program()
    if program is None:
        missing("the emulator of Google Cloud Storage is not installed")
    machine.put(program, "/usr/local/bin/fake-gcs-server")
    machine.write("/etc/anyon/environment", f"STORAGE_EMULATOR_HOST={EMULATOR}\n")
    machine.write("/etc/fuse.conf", "user_allow_other\n")
    machine.run(
        "systemd-run -q --unit=emulator fake-gcs-server -scheme http -backend memory"
        f" -host 127.0.0.1 -port 4443 -external-url {EMULATOR} -log-level error"
    )
    machine.waits_for(
        "the emulator answers",
        lambda: bool(machine.run(f"curl -sf {EMULATOR}/storage/v1/b", must=False)),
    )
    name = "anyon-booted"
    machine.run(
        f"curl -sf -H 'Content-Type: application/json' -d '{{\"name\": \"{name}\"}}'"
        f" '{EMULATOR}/storage/v1/b?project=test'"
    )
    yield name
    machine.run("systemctl stop emulator; rm /etc/anyon/environment")


@pytest.mark.parametrize("mounter", ["gcsfuse", pytest.param("rclone", marks=in_full)])
def test_a_bucket_is_mounted_killed_and_unmounted(
    machine: Machine, bucket: str, mounter: str
) -> None:
    """Started before the server; killed it is mounted again and work goes on; stopped it is unmounted, no failure."""
    mounter_or_skip(mounter)
    program = shutil.which(gcsfuse_program() if mounter == "gcsfuse" else rclone_program())
    assert program is not None
    machine.put(Path(program), f"/usr/local/bin/{mounter}")
    unit, place = f"{mounter}-anyon", f"{HOME}/projects-gcs"
    cleared(machine)
    machine.run(f"install -d -o anyon -g anyon -m 700 {HOME}")
    machine.run(
        f"runuser -u anyon -- env ANYON_HOME={HOME} anyon mount use {mounter} --bucket gs://{bucket}"
    )
    machine.run(f"ANYON_HOME={HOME} anyon install systemd --engine bubblewrap")
    machine.write(  # the plan's 10 s, in which nothing happens
        f"/etc/systemd/system/{unit}.service.d/soon.conf", "[Service]\nRestartSec=1\n"
    )
    try:
        machine.run(f"systemctl daemon-reload && systemctl enable --now {unit} {SERVER}")
        assert f"fuse.{mounter}" in machine.run(f"findmnt -n {place}")
        machine.run("anyon project create mounted")
        machine.run("anyon exec mounted -- sh -c 'echo kept >file'")
        machine.waits_for("it is in the bucket", lambda: "/file" in names(machine, bucket))
        killed = machine.pid(unit)
        machine.run(f"kill -9 {killed}")
        machine.waits_for(
            "it is mounted again",
            lambda: machine.shows(unit, "ActiveState") == "active" and machine.pid(unit) != killed,
        )
        machine.waits_for(
            "work goes on",
            lambda: machine.run("anyon exec mounted -- cat file", must=False) == "kept",
        )
        machine.run(f"anyon project stop mounted && systemctl stop {SERVER} {unit}")
        assert machine.shows(unit, "Result") == "success"
        machine.fails(f"findmnt -n {place}")
        assert "/file" in names(machine, bucket)
    finally:
        machine.run(f"systemctl disable --now {SERVER} {unit}", must=False)
        machine.run(f"umount -l {place}", must=False)
        machine.run(f"rm -rf /etc/systemd/system/{unit}.service.d")
        cleared(machine)


def names(machine: Machine, bucket: str) -> str:
    """Return what lies in the bucket, as its service tells it."""
    return machine.run(f"curl -sf {EMULATOR}/storage/v1/b/{bucket}/o")
