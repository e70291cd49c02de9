"""What a sandbox shows is decided by pure functions."""

from pathlib import Path, PurePosixPath

from anyon.domain.layout import HOME, WORKSPACE
from anyon.engines.engine import Mount
from anyon.engines.sandbox_plans import (
    KEPT_CAPABILITIES,
    Layer,
    SandboxPlan,
    bubblewrap_arguments,
    environment,
    hidden_entries,
    keeper,
    machine_environment,
    split_environment,
)


def _plan(**changes):
    return SandboxPlan(
        hostname="h",
        layers={PurePosixPath("/"): Layer(lower=Path("/"), upper=Path("/u"), work=Path("/w"))},
        hidden=[PurePosixPath("/var/log")],
        masked=[PurePosixPath("/etc/key")],
        mounts=[
            Mount(source=Path("/p"), target=WORKSPACE),
            Mount(source=Path("/s"), target=PurePosixPath("/srv/shared"), read_only=True),
        ],
        **changes,
    )


def test_the_parts_come_in_order():
    """What covers comes after what is covered: root, hidden, fresh directories, then mounts."""
    text = " ".join(bubblewrap_arguments(_plan()))
    order = [
        "--overlay-src / --overlay /u /w /",
        "--tmpfs /var/log",
        "--ro-bind /dev/null /etc/key",
        "--proc /proc",
        "--ro-bind-try /proc/sys /proc/sys",
        "--tmpfs /tmp",
        "--tmpfs /run",
        "--tmpfs /run/anyon-secrets",
        "--bind /p /workspace",
        "--ro-bind /s /srv/shared",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_namespaces_and_powers():
    """As root the dangerous capabilities are dropped; an ordinary user has its own namespace."""
    as_root = bubblewrap_arguments(_plan())
    assert "--unshare-user" not in as_root
    assert "CAP_CHOWN" in as_root
    as_user = bubblewrap_arguments(_plan(own_user_namespace=True))
    assert "--unshare-user" in as_user
    assert "--cap-add" not in as_user
    for arguments in (as_root, as_user):
        assert {"--unshare-pid", "--unshare-ipc", "--unshare-uts"} <= set(arguments)
        assert "--unshare-net" not in arguments
    dangerous = {"sys_admin", "mknod", "sys_module", "dac_read_search", "sys_rawio", "net_admin"}
    assert not dangerous & set(KEPT_CAPABILITIES)


def test_environment_is_built_from_nothing():
    """The command's wins over the container's over the defaults; a terminal has a type."""
    machine = {"A": "0", "PIP_CERT": "/bundle"}
    container = {"A": "1", "B": "1", "PATH": "/x"}
    env = environment(container, {"B": "2"}, terminal=True, machine=machine)
    assert env == {
        "PATH": "/x",
        "HOME": str(HOME),
        "LANG": "C.UTF-8",
        "NPM_CONFIG_PREFIX": f"{HOME}/.local",
        "PIP_CERT": "/bundle",
        "TERM": "xterm-256color",
        "A": "1",
        "B": "2",
    }
    assert "TERM" not in environment({}, {}, terminal=False, machine={})


def test_programs_inside_trust_whom_the_machine_trusts():
    """Of the known places the first that is there is named, for each program; else none is."""
    there = {"/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/npmrc"}
    assert machine_environment(there.__contains__) == {
        "NODE_EXTRA_CA_CERTS": "/etc/pki/tls/certs/ca-bundle.crt",
        "PIP_CERT": "/etc/pki/tls/certs/ca-bundle.crt",
        "REQUESTS_CA_BUNDLE": "/etc/pki/tls/certs/ca-bundle.crt",
        "NPM_CONFIG_GLOBALCONFIG": "/etc/npmrc",
    }
    assert machine_environment(lambda _: False) == {}


def test_what_would_change_the_hosts_programs_is_kept_from_them():
    """A library to preload inside must not be loaded by nsenter outside."""
    outside, inside = split_environment({"LD_PRELOAD": "/x.so", "BASH_ENV": "/y", "A": "1"})
    assert outside == {"A": "1"}
    assert inside == {"LD_PRELOAD": "/x.so", "BASH_ENV": "/y"}


def test_only_listed_entries_are_shown():
    """What nobody thought of is hidden."""
    shown = {"": frozenset({"usr", "var"}), "var": frozenset({"lib"})}
    entries = {"": ["usr", "home", "work", ".env"], "var": ["lib", "secrets"]}
    assert hidden_entries(shown, entries) == [".env", "home", "var/secrets", "work"]


def test_the_keeper_waits_to_be_recorded():
    """It goes when its starter dies first, and holds until its lifeline ends if it has one."""
    assert "read -r go || exit 1" in keeper()
    assert "/proc/self/fd/17" in keeper(17)
