"""The project's own layer over the host's root, and what is hidden in it.

Hiding is done in the layer itself before it is mounted: a directory becomes an opaque empty one,
a file a whiteout. So a package manager can make the thing anew (a database's directory, say), and
what the project made itself is never touched.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from anyon.engines.sandbox_plans import SHOWN_BELOW, hidden_entries

_OPAQUE = "user.overlay.opaque"
_SCANNED = ("etc", "opt", "usr/local/etc")
_SCAN_DEPTH = 4
_FRESH = ("tmp", "run", "dev", "proc", "sys", "var/tmp")
_ACCOUNTS = ("shadow", "gshadow")


def mount_points(mountinfo: str) -> Sequence[Path]:
    """Return where things are mounted, out of ``/proc/self/mountinfo``."""
    found = []
    for line in mountinfo.splitlines():
        fields = line.split()
        if len(fields) > 4:
            found.append(Path(fields[4].encode().decode("unicode_escape")))
    return found


def host_entries(root: Path) -> dict[str, list[str]]:
    """Return what is in each host directory of which only some is shown."""
    found = {}
    for parent in SHOWN_BELOW:
        try:
            found[parent] = [entry.name for entry in (root / parent).iterdir()]
        except (FileNotFoundError, PermissionError):
            found[parent] = []
    return found


def private_paths(root: Path) -> Iterator[str]:
    """Yield what other users of the host may not read, in the places where services keep keys.

    The container's root can be the host's, which could read it: it is hidden by this rule.
    """
    waiting = [(place, 0) for place in _SCANNED]
    while waiting:
        place, depth = waiting.pop()
        try:
            entries = list(os.scandir(root / place))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        for entry in entries:
            name = f"{place}/{entry.name}"
            try:
                mode = entry.stat(follow_symlinks=False).st_mode
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(mode):
                if not mode & stat.S_IROTH:
                    yield name
                elif depth < _SCAN_DEPTH:
                    waiting.append((name, depth + 1))
            elif not stat.S_ISLNK(mode) and not mode & stat.S_IROTH:
                yield name


def hidden_names(root: Path, hidden: Iterable[Path], *, private: bool = True) -> Sequence[str]:
    """Return all that is hidden of *root*, relative to it: outer directories before what is in them.

    *private* adds what other users of the host may not read.
    """
    names = set(hidden_entries(SHOWN_BELOW, host_entries(root)))
    if private:
        names.update(private_paths(root))
    names.update(str(path.relative_to(root)) for path in hidden if path.is_relative_to(root))
    # What is fresh in every sandbox has nothing of the host's to hide.
    return sorted(
        name
        for name in names - {"."}
        if not any(Path(name).is_relative_to(fresh) for fresh in _FRESH)
    )


def hide_in_layer(upper: Path, hidden: Iterable[Path], root: Path = Path("/")) -> None:
    """Make *upper*, to be mounted over *root*, hide what a project must not see."""
    for name in hidden_names(root, hidden):
        _hide(upper, root, name)
    _bare_accounts(upper, root)


def _hide(upper: Path, root: Path, name: str) -> None:
    target = upper / name
    if name in {f"etc/{account}" for account in _ACCOUNTS}:
        return  # replaced below
    try:
        found = (root / name).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    if _is_led_away(upper, Path(name).parent):
        return  # the project put something of its own in the place of the host's directory
    if os.path.lexists(target):
        # Made by the project, or hidden before. A directory must not be merged with the host's.
        if stat.S_ISDIR(target.lstat().st_mode):
            os.setxattr(target, _OPAQUE, b"y")
        return
    if not _make_parents(upper, root, Path(name).parent):
        return
    if not stat.S_ISDIR(found.st_mode):
        os.mknod(target, stat.S_IFCHR, os.makedev(0, 0))  # a whiteout
        return
    target.mkdir()
    os.setxattr(target, _OPAQUE, b"y")
    _like(target, found)


def _is_led_away(upper: Path, parent: Path) -> bool:
    """Say whether a link or a file of the layer's stands above: outside of it nothing is touched."""
    here = upper
    for part in parent.parts:
        here = here / part
        if here.is_symlink() or (here.exists() and not here.is_dir()):
            return True
    return False


def _make_parents(upper: Path, root: Path, parent: Path) -> bool:
    """Make the directories above, as the host's; False if one of them hides all below already."""
    here = upper
    for part in parent.parts:
        here = here / part
        if here.is_symlink() or (here.exists() and not here.is_dir()) or _is_opaque(here):
            return False
        if not here.exists():
            original = (root / here.relative_to(upper)).lstat()
            if not stat.S_ISDIR(original.st_mode):
                return False
            here.mkdir()
            _like(here, original)
    return True


def _is_opaque(directory: Path) -> bool:
    try:
        return os.getxattr(directory, _OPAQUE) == b"y"
    except OSError:  # absent, or it has no such attribute
        return False


def _like(directory: Path, original: os.stat_result) -> None:
    os.chown(directory, original.st_uid, original.st_gid)
    directory.chmod(stat.S_IMODE(original.st_mode))


def _bare_accounts(upper: Path, root: Path) -> None:
    """Give the layer account files without passwords: package managers need the files."""
    for account in _ACCOUNTS:
        source, target = root / "etc" / account, upper / "etc" / account
        if not source.exists() or not _make_parents(upper, root, Path("etc")):
            continue
        if os.path.lexists(target):  # the project's own, be it a link that leads nowhere
            continue
        found = source.stat()
        lines = [line.split(":") for line in source.read_text().splitlines() if ":" in line]
        for line in lines:
            line[1] = "*"
        target.write_text("".join(":".join(line) + "\n" for line in lines))
        os.chown(target, found.st_uid, found.st_gid)
        target.chmod(stat.S_IMODE(found.st_mode))
