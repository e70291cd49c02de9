"""How a sandbox's root is made on this machine: what the kernel allows is tried once.

As root, one overlay over the host's whole root. As an ordinary user the kernel refuses that (the
root has other mounts below it), so the root is put together from the host's directories, with
overlays on those where they are possible; what belongs to the host's root stays read-only then, and
``/usr/local`` and ``/opt`` are the project's to install into.
"""

import os
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from anyon.domain.errors import MissingError
from anyon.engines.engine import ContainerSpec
from anyon.engines.sandbox_layers import hidden_names, hide_in_layer, mount_points
from anyon.engines.sandbox_plans import ROOT_SHOWN, Layer, SandboxPlan
from anyon.engines.sandbox_trees import remove_tree
from anyon.engines.sandboxes import Tools, probe

_PARTS = ("usr", "etc", "opt", "var")
_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname")
_LOCAL = ("bin", "etc", "include", "lib", "sbin", "share", "lib/node_modules")
_NO_NAMESPACE = (
    "Allow user namespaces (sysctl user.max_user_namespaces=15000; on Ubuntu 24.04 also "
    "kernel.apparmor_restrict_unprivileged_userns=0), or run Anyon as root."
)

# What a program needs to run. Not all of /: the bind would take every mount below along, and
# another engine's come and go meanwhile, which bwrap does not forgive.
_PROGRAMS = [
    word
    for part in ("usr", "bin", "sbin", "lib", "lib32", "lib64")
    for word in ("--ro-bind-try", f"/{part}", f"/{part}")
]


@dataclass(frozen=True, slots=True)
class RootKind:
    """What is possible here. ``whole`` is one overlay over ``/``; else ``parts`` have their own."""

    whole: bool
    parts: Sequence[str]
    reason: str

    @property
    def words(self) -> str:
        """What it means, for people."""
        if self.whole:
            return "overlay over /"
        if self.parts:
            names = ", ".join(f"/{part}" for part in self.parts)
            return f"overlays over {names}; the rest read-only"
        return f"read-only, with /opt of the project's own: {self.reason}"


def find_kind(tools: Tools, state: Path) -> RootKind:
    """Try what this machine allows. Raises MissingError when there can be no sandbox at all."""
    own = ["--unshare-user"] if os.geteuid() else []
    failed = probe(tools, [*own, "--unshare-pid", *_PROGRAMS, "--proc", "/proc"])
    if failed:
        raise MissingError(
            f"this machine does not allow sandboxes: {failed}",
            code="namespaces_missing",
            hint=_NO_NAMESPACE,
        )
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    base = Path(tempfile.mkdtemp(dir=state, prefix="probe-"))
    try:
        return _try_overlays(tools, own, base)
    finally:
        remove_tree(base)


def _try_overlays(tools: Tools, own: Sequence[str], base: Path) -> RootKind:
    whole = [*own, *_overlay(base, "whole", "/"), "--ro-bind", "/proc", "/proc"]
    reason = probe(tools, whole)
    if not reason:
        return RootKind(True, (), "")
    parts = []
    for part in _PARTS:
        if not Path("/", part).is_dir():
            continue
        # The program run must be there in each try: all but the tried part are the host's.
        tried = [*own, *_PROGRAMS, *_overlay(base, part, f"/{part}")]
        failed = probe(tools, tried)
        if failed:
            reason = failed
        else:
            parts.append(part)
    return RootKind(False, tuple(parts), reason)


def _overlay(base: Path, name: str, place: str) -> Sequence[str]:
    upper, work = base / f"{name}-upper", base / f"{name}-work"
    upper.mkdir()
    work.mkdir()
    return ["--overlay-src", place, "--overlay", str(upper), str(work), place]


def make_plan(spec: ContainerSpec, kind: RootKind, hidden: Sequence[Path]) -> SandboxPlan:
    """Prepare a container's own layer on disk and return the plan of its sandbox."""
    return _whole(spec, hidden) if kind.whole else _put_together(spec, kind, hidden)


def _whole(spec: ContainerSpec, hidden: Sequence[Path]) -> SandboxPlan:
    upper, work = spec.system / "upper", spec.system / "work"
    for place in (upper, work):
        place.mkdir(parents=True, exist_ok=True)
    upper.chmod(0o755)
    hide_in_layer(upper, hidden)
    return SandboxPlan(
        hostname=_hostname(spec),
        layers={PurePosixPath("/"): Layer(lower=Path("/"), upper=upper, work=work)},
        shown=_mounts_below(ROOT_SHOWN - {"proc", "sys", "dev", "run", "tmp", "var"}, hidden),
        files=_network_files(),
        mounts=spec.mounts,
        own_user_namespace=os.geteuid() != 0,
    )


def _put_together(spec: ContainerSpec, kind: RootKind, hidden: Sequence[Path]) -> SandboxPlan:
    layers: dict[PurePosixPath, Layer] = {}
    shown: list[PurePosixPath] = []
    links: dict[PurePosixPath, str] = {}
    writable: dict[PurePosixPath, Path] = {}
    for name in sorted(ROOT_SHOWN - {"proc", "sys", "dev", "run", "tmp"}):
        host, place = Path("/", name), PurePosixPath("/", name)
        if host.is_symlink():
            links[place] = str(host.readlink())
        elif name in kind.parts:
            layers[place] = _part(spec.system / "layers" / name, host)
        elif name == "opt":
            writable[place] = spec.system / "opt"
            writable[place].mkdir(parents=True, exist_ok=True)
        elif host.is_dir():
            shown.append(place)
    covered = _covered(hidden_names(Path("/"), hidden, private=os.geteuid() == 0))
    return SandboxPlan(
        hostname=_hostname(spec),
        layers=layers,
        shown=shown,
        links=links,
        writable=writable,
        hidden=[place for place, directory in covered.items() if directory],
        masked=[place for place, directory in covered.items() if not directory],
        files=_network_files(),
        mounts=spec.mounts,
        own_user_namespace=os.geteuid() != 0,
    )


def _part(base: Path, host: Path) -> Layer:
    layer = Layer(lower=host, upper=base / "upper", work=base / "work")
    for place in (layer.upper, layer.work):
        place.mkdir(parents=True, exist_ok=True)
    if host == Path("/usr"):
        # Merged directories belong to who made the upper one: so there is a place to install into.
        for name in _LOCAL:
            (layer.upper / "local" / name).mkdir(parents=True, exist_ok=True)
    return layer


def _covered(names: Sequence[str]) -> Mapping[PurePosixPath, bool]:
    """Return which shown places must be covered, and whether each is a directory."""
    found: dict[PurePosixPath, bool] = {}
    for name in names:
        place = PurePosixPath("/", name)
        if place.parts[1] not in ROOT_SHOWN or any(parent in found for parent in place.parents):
            continue
        try:
            mode = Path(place).lstat().st_mode
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # what cannot be looked at from here cannot be seen inside
        if not stat.S_ISLNK(mode):
            found[place] = stat.S_ISDIR(mode)
    return found


def _mounts_below(names: frozenset[str], hidden: Sequence[Path]) -> Sequence[PurePosixPath]:
    """Return the host's mounts below shown directories: an overlay's lower side has none."""
    found = []
    for place in mount_points(Path("/proc/self/mountinfo").read_text()):
        below = len(place.parts) > 1 and place.parts[1] in names
        if below and place.exists() and not any(place.is_relative_to(path) for path in hidden):
            found.append(PurePosixPath(place))
    return sorted(set(found))


def _network_files() -> Sequence[PurePosixPath]:
    """Return the files that names are resolved with and that lie below ``/run`` on some systems."""
    found = []
    for name in _FILES:
        real = Path(name).resolve()
        if real.is_file() and real.is_relative_to("/run"):
            found.append(PurePosixPath(real))
    return found


def _hostname(spec: ContainerSpec) -> str:
    return f"project-{spec.project[:8]}"
