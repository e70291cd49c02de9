"""Trees for tests of storage: hostile ones, and a description by which two are compared."""

import os
import socket
import stat
from pathlib import Path

Described = dict[bytes, tuple[object, ...]]
IGNORED = (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFBLK, stat.S_IFCHR)
_COMPARED = ("user.", "trusted.overlay.", "security.capability")


def describe(root: Path, *, with_times: bool = True) -> Described:
    """Return everything that a restore must bring back, by path; hard links by first name."""
    found: Described = {}
    inodes: dict[int, bytes] = {}
    waiting = [(b"", bytes(root))]
    while waiting:
        path, at = waiting.pop()
        st = os.lstat(at)
        kind = stat.S_IFMT(st.st_mode)
        is_whiteout = kind == stat.S_IFCHR and st.st_rdev == 0
        if kind in IGNORED and not is_whiteout:
            continue
        content: object = b""
        link = b""
        if kind == stat.S_IFLNK:
            content = os.readlink(at)  # noqa: PTH115 - names are bytes
        elif kind == stat.S_IFREG:
            content = Path(os.fsdecode(at)).read_bytes() if st.st_size < (1 << 30) else st.st_size
            link = inodes.setdefault(st.st_ino, path) if st.st_nlink > 1 else b""
        elif kind == stat.S_IFDIR:
            names = sorted(os.listdir(at), reverse=True)  # noqa: PTH208 - names are bytes
            waiting += [(path + b"/" + name, at + b"/" + name) for name in names]
        has_xattrs = kind in {stat.S_IFREG, stat.S_IFDIR}
        xattrs = tuple(sorted(_xattrs(at))) if has_xattrs else ()
        time = st.st_mtime_ns if with_times else 0
        found[path] = (
            kind,
            stat.S_IMODE(st.st_mode),
            st.st_uid,
            st.st_gid,
            time,
            content,
            link,
            xattrs,
        )
    return found


def make_hostile(root: Path) -> None:
    """Fill *root* with every shape and name that has broken a backup somewhere."""
    root.mkdir(parents=True, exist_ok=True)
    top = bytes(root)
    for name in (
        b"line\nbreak",
        b"esc\x1b[2J",
        b"-rf",
        b"\xff\xfe",
        b"n" * 255,
        "한글".encode(),
        b'q"uo\\te',
        b" ",
    ):
        Path(os.fsdecode(top + b"/" + name)).write_bytes(name)
    (root / "empty").mkdir()
    (root / "empty file").touch()
    # Who is not root cannot read what is closed to everybody: that has a test of its own.
    is_root = os.geteuid() == 0
    for mode in (0o444, 0o755, 0o4755, *([0o000] if is_root else [])):
        file = root / f"mode-{mode:o}"
        file.write_text("x")
        file.chmod(mode)
    (root / "closed").mkdir()
    (root / "closed/in").write_text("inside")
    (root / "closed").chmod(0o000 if is_root else 0o500)
    (root / "hard-1").write_text("one file")
    (root / "empty/hard-2").hardlink_to(root / "hard-1")
    (root / "dangling").symlink_to("no/such")
    (root / "outside").symlink_to("/etc/passwd")
    (root / "loop").symlink_to("loop")
    (root / "up").symlink_to("..")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        here = os.open(root, os.O_RDONLY)
        try:
            unix.bind(f"/proc/self/fd/{here}/socket")
        finally:
            os.close(here)
    (root / "big").write_bytes(os.urandom((3 << 20) + 7))
    (root / "exact").write_bytes(os.urandom(1 << 20))
    with (root / "sparse").open("wb") as sparse:
        sparse.truncate(5 << 20)
        sparse.seek(3 << 20)
        sparse.write(b"data in the middle")
    os.utime(root / "exact", ns=(1, 1_234_567_890_123_456_789))
    os.utime(root / "dangling", ns=(5, 4_000_000_000_000_000_001), follow_symlinks=False)
    if _takes_xattrs(root):
        os.setxattr(root / "exact", "user.note", b"\0\xff binary")
        os.setxattr(root / "empty", "user.dir", b"too")


def make_deep(root: Path, depth: int) -> None:
    """Make *depth* directories one in the other, with a file at the bottom."""
    root.mkdir(parents=True, exist_ok=True)
    fd = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = inner
    bottom = os.open("bottom", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd)
    os.write(bottom, b"reached")
    os.close(bottom)
    os.close(fd)


def _takes_xattrs(root: Path) -> bool:
    try:
        os.setxattr(root, "user.probe", b"1")
        os.removexattr(root, "user.probe")
    except OSError:
        return False
    return True


def _xattrs(path: bytes) -> list[tuple[str, bytes]]:
    return [(n, os.getxattr(path, n)) for n in os.listxattr(path) if n.startswith(_COMPARED)]
