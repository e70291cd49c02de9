"""Settings: read once from a TOML file and ``ANYON_*``, frozen, handed down.

The environment wins over the file, the file over the home's own ``storage.toml``, that over the defaults. Each field's ``doc`` is its
documentation; ``docs/reference/settings.md`` is generated from them.
"""

import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any


class SettingsError(Exception):
    """A setting is unknown or has a value that cannot be; the message names it and says what is allowed."""

    code = "bad_setting"


def _setting(default: Any, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


def _default_home() -> Path:
    return Path.home() / ".local" / "share" / "anyon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that can be set. Lengths are written ``90s``, ``5m``, ``30m``, ``7d``; sizes ``64MiB``, ``2GB``."""

    home: Path = field(
        default_factory=_default_home,
        metadata={"doc": "Where Anyon keeps everything: database, projects, state."},
    )
    host: str = _setting(
        "127.0.0.1", "Address to listen on. Any but a loopback address requires tokens."
    )
    port: int = _setting(8080, "Port to listen on; 0 takes a free one.")
    require_tokens: bool = _setting(
        False, "Ask for a token on loopback too. Always so on other addresses."
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (), "More Host names that requests may carry, beside the address and localhost."
    )
    database_url: str = _setting("", "A Postgres URL; empty for SQLite in the home.")
    engine: str = _setting("auto", "auto, bubblewrap, docker or memory (for tests).")
    docker_socket: str = _setting("", "Docker or Podman socket; empty looks in the usual places.")
    docker_runtime: str = _setting(
        "", "OCI runtime (runc, runsc, kata); empty is the engine's own."
    )
    image: str = _setting("anyon/workspace:latest", "Image of a project that names none (docker).")
    container_uid: int = _setting(
        1000, "User id that work runs as inside (docker); the image's user anyon."
    )
    container_cpus: float = _setting(0.0, "Cores that one container may use; 0 is no limit.")
    container_memory: int = _setting(0, "Memory that one container may use; 0 is no limit.")
    container_pids: int = _setting(4096, "Processes and threads in one container.")
    default_agent: str = _setting("CLAUDE_CODE", "Agent of a task and a project that name none.")
    freeze_after: timedelta = _setting(
        timedelta(minutes=5), "Idle time after which a container is frozen; 0 never."
    )
    stop_after: timedelta = _setting(
        timedelta(minutes=30), "Idle time after which a container is stopped; 0 never."
    )
    archive_after: timedelta = _setting(
        timedelta(days=7), "Idle time after which the local files are released; 0 never."
    )
    terminal_awake: timedelta = _setting(
        timedelta(minutes=10),
        "How long a terminal holds its project awake after the last key; output is no activity.",
    )
    preview_url: str = _setting(
        "",
        "Address below which every name leads here, for previews, such as https://preview.example.net: "
        "of another site than the server's own. Empty is preview.localhost on loopback, else none.",
    )
    preview_awake: timedelta = _setting(
        timedelta(minutes=10),
        "How long a preview holds its project awake after the last request or message to it.",
    )
    wakes_per_hour: int = _setting(
        120, "How often one project may be woken in an hour; 0 is no limit."
    )
    max_running: int = _setting(
        0, "How many containers may run at once, frozen ones included; 0 is no limit."
    )
    max_memory: int = _setting(
        0,
        "Memory of all running containers together: their limits (container_memory), or what they use "
        "where they have none; 0 is no limit.",
    )
    pressure_stalls: float = _setting(
        25.0,
        "Percent of ten seconds in which programs waited for memory from which on sleeping projects "
        "are stopped; 0 never.",
    )
    pressure_available: int = _setting(
        256 * 1024 * 1024,
        "Available memory below which the same happens, where the kernel tells of no stalls; 0 never.",
    )
    reconcile_interval: timedelta = _setting(
        timedelta(seconds=15), "How often what is there is compared with what is wanted."
    )
    stop_grace: timedelta = _setting(
        timedelta(seconds=10), "Time between TERM and KILL when a process or container is stopped."
    )
    checkpoint_interval: timedelta = _setting(
        timedelta(seconds=60),
        "How often a project in which something happens is saved; 0 only at stops.",
    )
    keep_all: timedelta = _setting(
        timedelta(hours=24), "For how long every checkpoint is kept; the newest always is."
    )
    keep_hourly: timedelta = _setting(
        timedelta(days=7), "For how long the newest checkpoint of each hour is kept."
    )
    keep_daily: timedelta = _setting(
        timedelta(days=30), "For how long the newest checkpoint of each day is kept."
    )
    keep_monthly: timedelta = _setting(
        timedelta(days=366), "For how long the newest checkpoint of each month is kept."
    )
    collect_interval: timedelta = _setting(
        timedelta(hours=6), "How often it is looked what nothing needs any more; 0 never."
    )
    collect_grace: timedelta = _setting(
        timedelta(hours=24), "How old at least must be what is removed as not needed."
    )
    drill_hour: int = _setting(
        3, "Hour of the day (UTC) at which some projects are restored for proof; -1 never."
    )
    drill_projects: int = _setting(3, "How many projects are restored for proof in a night.")
    checkpoint_bandwidth: int = _setting(
        0, "Bytes a second that checkpoints may send to the store, all together; 0 is no limit."
    )
    undo_window: timedelta = _setting(
        timedelta(days=7), "How long a deleted project can be brought back."
    )
    keep_events: timedelta = _setting(
        timedelta(days=90),
        "For how long a project's events are kept; its last 1,000 always are, and 0 keeps all.",
    )
    output_cap: int = _setting(
        64 * 1024 * 1024, "Bytes kept of each output of a process; the middle goes first."
    )
    picture_quota: int = _setting(
        512 * 1024 * 1024, "Bytes of pictures that one user may keep to attach them to tasks."
    )
    store: str = _setting(
        "",
        "Where checkpoints go: a directory, gs://bucket/prefix or s3://bucket/prefix; empty is home/store, none keeps none.",
    )
    replica_interval: timedelta = _setting(
        timedelta(seconds=1),
        "How often the server's own database (SQLite) is carried on to the store; 0 never.",
    )
    snapshot_interval: timedelta = _setting(
        timedelta(hours=1), "How often a whole copy of it is put there; 0 never."
    )
    encryption: str = _setting(
        "auto",
        "Whether what goes into the store is encrypted: on, off, or auto (on for gs:// and s3://).",
    )
    key_file: str = _setting(
        "", "The file of the keys for that; empty is home/keys.json, made at the first start."
    )
    storage: str = _setting(
        "checkpoints",
        "Where new projects' files live: checkpoints (local disk, saved to the store), or a mounted "
        "bucket by gcsfuse or rclone. Slow, and much breaks there: see the operator's guide.",
    )
    mount_bucket: str = _setting("", "gs://bucket or gs://bucket/prefix that is mounted.")
    mount_profile: str = _setting(
        "tuned", "Options of the mount: plan (as first planned) or tuned."
    )
    mount_externally: bool = _setting(
        False, "Whether another service mounts (systemd's): then the server only watches."
    )
    mount_interval: timedelta = _setting(timedelta(seconds=15), "How often the mount is looked at.")
    metrics_per_project: bool = _setting(
        True, "Whether /metrics names projects (run times, use); off with very many of them."
    )
    failpoint: str = _setting(
        "",
        "For tests: the step (NAME, or NAME:N for its N-th time) at which the server kills itself.",
    )
    traces_endpoint: str = _setting(
        "",
        "Where traces go: an OTLP/HTTP address (http://host:4318/v1/traces); empty makes none.",
    )
    disk_interval: timedelta = _setting(
        timedelta(minutes=5),
        "How often the disk use of projects at work is measured, for /metrics.",
    )
    log_level: str = _setting("info", "debug, info, warning or error.")
    log_format: str = _setting("console", "console or json.")
    log_kept: int = _setting(
        16 * 1024 * 1024,
        "How much of the log is kept in the home (logs/server.log) for `anyon support bundle`; 0 is none.",
    )

    @property
    def is_encrypted(self) -> bool:
        """Whether what goes into the store is encrypted."""
        return self.encryption == "on" or (self.encryption == "auto" and "://" in self.store)

    @property
    def keys_path(self) -> Path:
        """Where the key file is, or is to be."""
        return Path(self.key_file).expanduser() if self.key_file else self.home / "keys.json"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in {"127.0.0.1", "::1", "localhost"}

    @property
    def tokens_required(self) -> bool:
        """Whether a request must carry a token."""
        return self.require_tokens or not self.is_loopback


_BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^/\0]+)*/?")
STORAGE_FILE = "storage.toml"
"""In the home: what ``anyon migrate`` has decided of storage; everything else wins over it."""
_STORAGE_NAMES = frozenset({"storage", "mount_bucket", "mount_profile"})
_LENGTHS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZED = {
    "checkpoint_bandwidth",
    "container_memory",
    "log_kept",
    "max_memory",
    "output_cap",
    "picture_quota",
    "pressure_available",
}
_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def load(environment: Mapping[str, str] | None = None, file: Path | None = None) -> Settings:
    """Return the settings of *environment* (default: the process's) and a TOML file.

    The file is *file*, else ``ANYON_CONFIG``, else ``~/.config/anyon/config.toml`` if it is there.
    Raises SettingsError for an unknown name, a bad value or an unreadable file.
    """
    env = os.environ if environment is None else environment
    given: dict[str, Any] = dict(_read_file(env, file))
    for key, value in env.items():
        name = key.removeprefix("ANYON_").lower()
        if key.startswith("ANYON_") and name in _names():
            given[name] = value
    unknown = sorted(set(given) - _names())
    if unknown:
        raise SettingsError(f"unknown setting: {', '.join(unknown)}; `anyon doctor` lists all")
    hints = typing.get_type_hints(Settings)
    home = _parse("home", hints["home"], given["home"]) if "home" in given else _default_home()
    for name, value in _read_toml(home / STORAGE_FILE, must_exist=False).items():
        if name in _STORAGE_NAMES:
            given.setdefault(name, value)
    return _checked(
        Settings(**{name: _parse(name, hints[name], raw) for name, raw in given.items()})
    )


def _names() -> set[str]:
    return {f.name for f in fields(Settings)}


def _read_file(env: Mapping[str, str], file: Path | None) -> Mapping[str, Any]:
    named = file or (Path(env["ANYON_CONFIG"]) if env.get("ANYON_CONFIG") else None)
    path = named or Path(env.get("HOME", "/nonexistent")) / ".config" / "anyon" / "config.toml"
    return _read_toml(path, must_exist=named is not None)


def _read_toml(path: Path, *, must_exist: bool) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not must_exist:
            return {}
        raise SettingsError(f"settings file {path} is not there") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"settings file {path} cannot be read: {error}") from error


def _parse(name: str, kind: Any, raw: Any) -> Any:
    try:
        return _value(name, kind, raw)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"setting {name}: {raw!r} is not {_form(name, kind)}") from error


def _value(name: str, kind: Any, raw: Any) -> Any:  # noqa: PLR0911 - one return for each kind of value
    if kind is bool:
        return _boolean(raw)
    if kind is timedelta:
        return timedelta(seconds=_scaled(raw, _LENGTHS, "s"))
    if kind is int:
        is_size = name in _SIZED
        return int(_scaled(raw, _SIZES, "B")) if is_size else int(str(raw))
    if kind is float:
        return float(raw)
    if kind is Path:
        return Path(str(raw)).expanduser().absolute()
    if isinstance(kind, types.GenericAlias):
        items = raw.split(",") if isinstance(raw, str) else raw
        return tuple(str(item).strip() for item in items if str(item).strip())
    if not isinstance(raw, str):
        raise TypeError(name)
    return raw


def _form(name: str, kind: Any) -> str:
    if kind is timedelta:
        return "a length such as 90s, 5m or 7d"
    if name in _SIZED:
        return "a size such as 512MiB or 2GB"
    return {bool: "true or false", int: "a whole number", float: "a number"}.get(
        kind, "such a value"
    )


def _boolean(raw: object) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    word = str(raw).strip().lower()
    if word not in words:
        raise ValueError(word)
    return words[word]


def _scaled(raw: object, units: Mapping[str, float], plain: str) -> float:
    text = str(raw).strip()
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    value = float(number) * units.get(text[len(number) :].strip() or plain, float("nan"))
    if not 0 <= value < 1e15:  # also refuses nan
        raise ValueError(text)
    return value


def _checked(settings: Settings) -> Settings:
    choices = {
        "engine": {"auto", "bubblewrap", "docker", "memory"},
        "encryption": {"auto", "on", "off"},
        "storage": {"checkpoints", "gcsfuse", "rclone"},
        "mount_profile": {"plan", "tuned"},
        "log_level": {"debug", "info", "warning", "error"},
        "log_format": {"console", "json"},
    }
    for name, allowed in choices.items():
        if getattr(settings, name) not in allowed:
            raise SettingsError(f"setting {name}: must be one of {', '.join(sorted(allowed))}")
    for name in ("wakes_per_hour", "max_running"):
        if getattr(settings, name) < 0:
            raise SettingsError(f"setting {name}: must not be negative; 0 is no limit")
    if not -1 <= settings.drill_hour <= 23:
        raise SettingsError("setting drill_hour: must be between 0 and 23, or -1 for never")
    if settings.traces_endpoint and not settings.traces_endpoint.startswith(
        ("http://", "https://")
    ):
        raise SettingsError("setting traces_endpoint: must begin with http:// or https://")
    if 0 < settings.max_memory < settings.container_memory:
        raise SettingsError("setting max_memory: must be at least container_memory")
    if not 0 <= settings.pressure_stalls <= 100:
        raise SettingsError("setting pressure_stalls: must be between 0 and 100 percent")
    if settings.preview_url and not re.fullmatch(
        r"https?://[a-z0-9.-]+(:[0-9]{1,5})?/?", settings.preview_url.lower()
    ):
        raise SettingsError("setting preview_url: must be such as https://preview.example.net")
    if settings.storage != "checkpoints" and not _BUCKET.fullmatch(settings.mount_bucket):
        raise SettingsError(
            f"setting mount_bucket: storage {settings.storage} needs gs://bucket or gs://bucket/prefix"
        )
    if not 0 <= settings.port <= 65535:
        raise SettingsError("setting port: must be between 0 and 65535")
    return settings
