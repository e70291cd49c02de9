"""What an examination finds, and those examinations that need no engine and no store."""

import importlib.util
import json
import os
import resource
from dataclasses import dataclass
from pathlib import Path

from anyon.agents.registry import find, registry
from anyon.config import Settings
from anyon.db import inspections
from anyon.domain.errors import AnyonError
from anyon.monitoring import programs

_FILES_WANTED = 4096
_MEMORY_WANTED = 2 * 2**30
_WATCHES_WANTED = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was examined. ``needed`` says that Anyon cannot work as set without it."""

    name: str
    ok: bool
    detail: str
    hint: str = ""
    needed: bool = False


def database(settings: Settings) -> Finding:
    """Look into the database, changing nothing."""
    try:
        seen = inspections.look(settings.database_url or settings.home / "anyon.db", event_limit=1)
    except AnyonError as error:
        hint = error.hint or "Check the setting database_url, or restore the database."
        return Finding(name="database", ok=False, detail=error.message, hint=hint, needed=True)
    if seen is None:
        return Finding(name="database", ok=True, detail="made at the first start")
    rows = f"{seen.counts.get('projects', 0)} projects, {seen.counts.get('events', 0)} events"
    detail = f"{seen.kind} {seen.version}, schema {seen.revision} of {seen.newest}; {rows}"
    is_newer = seen.revision is not None and seen.revision > seen.newest
    hint = "a newer Anyon wrote it: install that version" if is_newer else ""
    return Finding(name="database", ok=not is_newer, detail=detail, hint=hint, needed=True)


def server(settings: Settings) -> Finding:
    """Say whether a server has this home."""
    pid, address = _serving(settings) or (0, "")
    detail = f"process {pid} at {address}" if pid else "not running"
    return Finding(name="server", ok=True, detail=detail)


def serves(settings: Settings) -> bool:
    """Say whether this home's server runs, at the very port that is set."""
    _, address = _serving(settings) or (0, "")
    return address.endswith(f":{settings.port}")


def _serving(settings: Settings) -> tuple[int, str] | None:
    """Return the process and address of this home's server, None where none runs."""
    try:
        told = json.loads((settings.home / "server.json").read_text(encoding="utf-8"))
        pid, address = int(told["pid"]), str(told["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (pid, address) if Path(f"/proc/{pid}").exists() else None


def limits() -> Finding:
    """Look at how many files may be open: every stream and process takes some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ok = soft >= _FILES_WANTED
    hint = "" if ok else "raise it: LimitNOFILE= in the service, or ulimit -n"
    return Finding(name="files", ok=ok, detail=f"{soft} may be open (at most {hard})", hint=hint)


def watches() -> Finding:
    """Look at how many directories a user may watch, by which output is followed at once."""
    try:
        allowed = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
        most = int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())
    except (OSError, ValueError):
        return Finding(name="inotify", ok=False, detail="the kernel does not say")
    ok = most >= _WATCHES_WANTED
    hint = "" if ok else "sysctl fs.inotify.max_user_watches=65536"
    return Finding(name="inotify", ok=ok, detail=f"{most} watches, {allowed} instances", hint=hint)


def memory() -> Finding:
    """Look at how much memory there is."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    ok = size >= _MEMORY_WANTED
    hint = (
        "" if ok else "set container_memory and max_running, so that projects share what is there"
    )
    detail = f"{size / 2**30:.1f} GiB, {os.cpu_count()} cores"
    return Finding(name="memory", ok=ok, detail=detail, hint=hint)


def cgroup(root: Path = Path("/sys/fs/cgroup")) -> Finding:
    """Look at whether containers can be limited: the controllers for CPU, memory and processes."""
    unified = root / "cgroup.controllers"
    try:
        version = 2 if unified.exists() else 1
        found = set(unified.read_text().split()) if version == 2 else _directories(root)
    except OSError as error:
        return Finding(name="cgroup", ok=False, detail=f"cannot be read: {error.strerror}")
    missing = sorted({"cpu", "memory", "pids"} - found)
    hint = f"the kernel offers no {', '.join(missing)}: such limits do not hold" if missing else ""
    there = ", ".join(sorted({"cpu", "memory", "pids", "freezer"} & found)) or "none"
    return Finding(name="cgroup", ok=not missing, detail=f"version {version}: {there}", hint=hint)


def _directories(root: Path) -> set[str]:
    return {name for path in root.iterdir() if path.is_dir() for name in path.name.split(",")}


def agents(settings: Settings) -> Finding:
    """Look at which agents have a key in this environment (the server's may be another)."""
    keyed = [it for it in registry().values() if it.secret_names]
    ready = sorted(it.name for it in keyed if any(os.environ.get(name) for name in it.secret_names))
    try:
        default = find(settings.default_agent)
    except AnyonError as error:
        return Finding(name="agents", ok=False, detail=error.message, hint=error.hint)
    ok = not default.secret_names or default.name in ready
    hint = "" if ok else f"set {' or '.join(default.secret_names)} in the server's environment"
    detail = f"default {settings.default_agent}; with a key here: {', '.join(ready) or 'none'}"
    return Finding(name="agents", ok=ok, detail=detail, hint=hint)


def monitoring() -> Finding:
    """Look at what `anyon monitoring up` starts."""
    try:
        found = programs.installed()
    except AnyonError as error:
        return Finding(name="monitoring", ok=False, detail=error.message, hint=error.hint)
    return Finding(name="monitoring", ok=True, detail=", ".join(sorted(found)))


def traces(settings: Settings) -> Finding:
    """Look at whether traces can be sent, where they are switched on."""
    if not settings.traces_endpoint:
        return Finding(name="traces", ok=True, detail="off (setting traces_endpoint)")
    is_there = _has_exporter()
    hint = "" if is_there else "pip install 'anyon[traces]', or leave traces_endpoint empty"
    return Finding(
        name="traces", ok=is_there, detail=settings.traces_endpoint, hint=hint, needed=True
    )


def _has_exporter() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False
