"""What a sandbox is made of, and how bubblewrap is told: pure, save for names of paths.

The root of a sandbox is the host's, read-only, with the project's own layer over it. What is
not on the lists below is not shown: directories at the root that no distribution makes, homes,
sockets, the state of other services.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from anyon.domain.layout import HOME, SECRETS
from anyon.engines.engine import Mount

ROOT_SHOWN = frozenset(
    {
        *("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt", "var"),
        *("proc", "sys", "dev", "run", "tmp"),
    }
)
"""What of the host's root directory is shown; every other name is hidden."""
VAR_SHOWN = frozenset({"cache", "lib", "lock", "run", "tmp"})
VAR_LIB_SHOWN = frozenset(
    {
        *("alternatives", "apt", "apk", "dpkg", "pacman", "rpm", "ucf"),
        *("aspell", "dbus", "dictionaries-common", "emacsen-common", "gems", "ghostscript", "git"),
        *("initramfs-tools", "locales", "man-db", "misc", "mime-support", "pam", "polkit-1"),
        *(
            "python",
            "python3",
            "sgml-base",
            "shells.state",
            "usbutils",
            "vim",
            "xfonts",
            "xml-core",
        ),
    }
)
VAR_CACHE_SHOWN = frozenset(
    {"apt", "apk", "debconf", "dnf", "fontconfig", "ldconfig", "man", "pacman", "yum"}
)
SHOWN_BELOW: Mapping[str, frozenset[str]] = {
    "": ROOT_SHOWN,
    "var": VAR_SHOWN,
    "var/lib": VAR_LIB_SHOWN,
    "var/cache": VAR_CACHE_SHOWN,
}
"""Host directories of which only the named entries are shown."""
PATH = f"{HOME}/.local/bin:{HOME}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KEPT_CAPABILITIES = (
    *("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap"),
    *("net_bind_service", "net_raw", "sys_chroot", "sys_ptrace", "audit_write", "setfcap"),
)
"""What root inside may do when the engine runs as root: enough for package managers and debuggers,
not enough to mount, to load modules, or to make device files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A directory of the host with the project's own writes kept apart from it."""

    lower: Path
    upper: Path
    work: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxPlan:
    """All that decides what a sandbox shows.

    Later parts cover earlier ones: layers, shown, links, hidden, the fixed parts, files, mounts.
    ``layers`` maps places to overlays; ``shown`` are host paths shown read-only; ``writable`` maps
    places to host directories that are the project's own; ``hidden`` are directories that become empty, ``masked`` files that do.
    """

    hostname: str
    layers: Mapping[PurePosixPath, Layer] = field(default_factory=dict)
    shown: Sequence[PurePosixPath] = ()
    links: Mapping[PurePosixPath, str] = field(default_factory=dict)
    writable: Mapping[PurePosixPath, Path] = field(default_factory=dict)
    hidden: Sequence[PurePosixPath] = ()
    masked: Sequence[PurePosixPath] = ()
    files: Sequence[PurePosixPath] = ()
    mounts: Sequence[Mount] = ()
    own_user_namespace: bool = False


def keeper(lifeline: int | None = None) -> str:
    """Return the script of a sandbox's second process (the first is bubblewrap's, which reaps).

    It says that all is set up, waits until it has been recorded (and goes if its starter died
    before), and holds the sandbox open: for good, or until the descriptor *lifeline* ends.
    """
    hold = "exec sleep 2147483647 </dev/null >/dev/null 2>&1"
    if lifeline is not None:
        # The first process would wait for what still runs: everything is killed.
        hold = f"exec >/dev/null 2>&1; read -r end </proc/self/fd/{lifeline}; kill -s KILL -- -1"
    return f"echo ready; read -r go || exit 1; {hold}"


def _fresh_parts() -> Sequence[str]:
    """Return what is the same in every sandbox, and made anew at each start."""
    found = ["--proc", "/proc", "--dev", "/dev", "--ro-bind", "/sys", "/sys"]
    # Bubblewrap covers a part of /proc only: as root the rest would change the host's kernel.
    for name in ("sys", "fs", "acpi", "scsi"):
        found += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
    for fresh, mode in (("/tmp", "1777"), ("/var/tmp", "1777"), ("/run", "0755")):  # noqa: S108 - inside
        found += ["--perms", mode, "--tmpfs", fresh]
    found += ["--perms", "1777", "--dir", "/run/lock"]
    return found


_FRESH_PARTS = _fresh_parts()


def bubblewrap_arguments(plan: SandboxPlan) -> Sequence[str]:
    """Return the arguments that make *plan*'s sandbox, without the program."""
    found = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", plan.hostname]
    if plan.own_user_namespace:
        found += ["--unshare-user"]
    else:
        found += ["--cap-drop", "ALL"]
        for name in KEPT_CAPABILITIES:
            found += ["--cap-add", f"CAP_{name.upper()}"]
    for place, layer in plan.layers.items():
        found += ["--overlay-src", str(layer.lower)]
        found += ["--overlay", str(layer.upper), str(layer.work), str(place)]
    for path in plan.shown:
        found += ["--ro-bind", str(path), str(path)]
    for place, target in plan.links.items():
        found += ["--symlink", target, str(place)]
    for place, source in plan.writable.items():
        found += ["--bind", str(source), str(place)]
    for path in plan.hidden:
        found += ["--perms", "0755", "--tmpfs", str(path)]
    for path in plan.masked:
        found += ["--ro-bind", "/dev/null", str(path)]
    found += _FRESH_PARTS
    for path in plan.files:
        found += ["--ro-bind-try", str(path), str(path)]
    found += ["--perms", "0700", "--tmpfs", str(SECRETS)]
    for mount in plan.mounts:
        kind = "--ro-bind" if mount.read_only else "--bind"
        found += [kind, str(mount.source), str(mount.target)]
    return [*found, "--chdir", "/"]


_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora and its kin
    "/etc/ssl/ca-bundle.pem",  # openSUSE
)
_NPM_SETTINGS = ("/usr/etc/npmrc", "/usr/local/etc/npmrc", "/etc/npmrc")


def machine_environment(is_file: Callable[[str], bool]) -> Mapping[str, str]:
    """Return the variables by which programs trust whom this machine trusts, and ask whom it asks.

    Node, pip and requests bring certificate authorities of their own, so that a company's proxy
    is a stranger to them. And npm looks for its machine-wide settings, the registry among them,
    below its prefix, which in a sandbox is the home.
    """
    found = {}
    for bundle in filter(is_file, _CERTIFICATES):
        found = dict.fromkeys(("NODE_EXTRA_CA_CERTS", "PIP_CERT", "REQUESTS_CA_BUNDLE"), bundle)
        break
    for settings in filter(is_file, _NPM_SETTINGS):
        found["NPM_CONFIG_GLOBALCONFIG"] = settings
        break
    return found


def environment(
    container: Mapping[str, str],
    command: Mapping[str, str],
    *,
    terminal: bool,
    machine: Mapping[str, str],
) -> Mapping[str, str]:
    """Return a program's whole environment: nothing of the server's own is in it.

    *machine* is what ``machine_environment`` found. Npm installs into the home, as in Anyon's
    images: without root its own place is not writable.
    """
    found = {"PATH": PATH, "HOME": str(HOME), "LANG": "C.UTF-8", **machine}
    found["NPM_CONFIG_PREFIX"] = f"{HOME}/.local"
    if terminal:
        found["TERM"] = "xterm-256color"
    return {**found, **container, **command}


_HOST_SIDE = ("LD_", "GLIBC_", "MALLOC_", "BASH", "GCONV_", "LOCPATH", "NLSPATH", "ENV")


def split_environment(env: Mapping[str, str]) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Split what the host's programs on the way in may see from what would change them."""
    inside_only = {key: value for key, value in env.items() if key.startswith(_HOST_SIDE)}
    return {key: value for key, value in env.items() if key not in inside_only}, inside_only


def hidden_entries(
    shown_below: Mapping[str, frozenset[str]], entries: Mapping[str, Sequence[str]]
) -> Sequence[str]:
    """Return the entries that are on no list, relative to the root, in order."""
    return sorted(
        f"{parent}/{name}" if parent else name
        for parent, shown in shown_below.items()
        for name in entries.get(parent, ())
        if name not in shown
    )
