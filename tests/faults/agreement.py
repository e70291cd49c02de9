"""Do database, engine and disk agree? One look, told as a list of what does not."""

import os
import sqlite3
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.mortal_servers import asked

from anyon.clock import SystemClock
from anyon.config import Settings
from anyon.domain.errors import AnyonError
from anyon.domain.ids import is_id
from anyon.engines.docker_options import LABEL_INSTANCE, LABEL_PROJECT
from anyon.storage.checkpoints import Checkpoints
from anyon.wiring import engines, stores

PASSING = {"creating", "stopping", "stopped_unsaved", "archiving", "restoring", "deleting"}
CONTAINERS = {
    "running": {"running"},
    "frozen": {"frozen"},
    "stopped": {"stopped", None},
    "archived": {None},
    "absent": {None},
}
"""Which container each phase at rest may have."""
GROUPS = Path("/sys/fs/cgroup")


@dataclass
class Known:
    """A project that a client was told of: what it wrote, and whether its deletion was acknowledged."""

    id: str
    files: dict[str, str] = field(default_factory=dict)
    is_deleted: bool = False


def disagreements(settings: Settings, known: list[Known]) -> list[str]:
    """Return what is wrong now; empty when all agree and all that was acknowledged is there."""
    found = rows(settings.home)
    living = {project: row for project, row in found.items() if row["deleted_at"] is None}
    dead = {project: row for project, row in found.items() if row["deleted_at"] is not None}
    seen = asked(lambda: _containers(settings))
    return [
        *_of_records(living, dead, seen),
        *_of_engine(settings, living, seen),
        *_of_disk(settings.home, living),
        *_of_store(settings.home, living.keys() | dead.keys()),
        *_of_clients(settings, known, living, dead),
    ]


def rows(home: Path) -> dict[str, dict[str, Any]]:
    """Return what is recorded of each project, by its id."""
    with sqlite3.connect(f"file:{home}/anyon.db?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        found = [dict(row) for row in connection.execute("SELECT * FROM projects")]
    return {row["id"]: row for row in found}


async def _containers(settings: Settings) -> dict[str, str]:
    engine = await engines.choose(settings)
    try:
        found = [(info.project, info.state.value) for info in await engine.list()]
    finally:
        await engine.close()
    assert len(dict(found)) == len(found), f"two containers of one project: {found}"
    return {str(project): state for project, state in found}


def _of_records(
    living: dict[str, dict[str, Any]], dead: dict[str, dict[str, Any]], seen: dict[str, str]
) -> list[str]:
    wrong = []
    for project, row in living.items():
        phase, state = row["phase"], seen.get(project)
        if phase in PASSING:
            wrong.append(f"{project} is still {phase}")
        elif state not in CONTAINERS.get(phase, set()):
            wrong.append(f"{project} is recorded as {phase}, its container is {state}")
    wrong += [
        f"{p} is deleted and still {r['phase']}" for p, r in dead.items() if r["phase"] != "absent"
    ]
    return wrong + [f"a container of {p}, which is no project" for p in seen.keys() - living.keys()]


def _of_engine(
    settings: Settings, living: dict[str, dict[str, Any]], seen: dict[str, str]
) -> list[str]:
    """Look past the driver: at programs, control groups, and all that carries this home's label."""
    up = {project for project, state in seen.items() if state != "stopped"}
    wrong = [f"programs of {p} run in no container" for p in _inhabited(settings.home) - up]
    if settings.engine == "docker":
        label = f"{LABEL_INSTANCE}={engines.instance(settings)}"
        names = _docker(
            "ps",
            "-a",
            "--filter",
            f"label={label}",
            "--format",
            f'{{{{.Label "{LABEL_PROJECT}"}}}}',
        )
        if sorted(names) != sorted(seen):
            wrong.append(f"Docker has containers of {names}, the driver of {sorted(seen)}")
        networks = _docker("network", "ls", "--filter", f"label={label}", "--format", "{{.Name}}")
        alone = [name for name in networks if name.removeprefix("anyon-") not in {"anyon", *living}]
        return wrong + [f"the network {name} is nobody's" for name in alone]
    # An empty group of a container that ended by itself is taken again by its next start.
    ours = set(living) | {path.stem for path in (settings.home / "engine").glob("*.lock")}
    for place in _groups():
        project = place.name.removeprefix("project-")
        if project in ours - seen.keys():
            wrong.append(f"the control group {place} is no container's")
        elif project in ours - up and (place / "cgroup.procs").read_text():
            wrong.append(f"something runs in {place}, whose container does not")
    return wrong


def _docker(*argv: str) -> list[str]:
    return subprocess.run(
        ["docker", *argv], check=True, capture_output=True, text=True
    ).stdout.split()


def _inhabited(home: Path) -> set[str]:
    """Return the projects whose workspace some process sees as its own."""
    found = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            lines = (Path(entry.path) / "mountinfo").read_text().splitlines()
        except OSError:  # it has ended
            continue
        for line in lines:
            source, target = line.split()[3:5]
            if target == "/workspace" and f"{home.name}/projects/" in source:
                found.add(source.rpartition("/")[2])
    return found


def _groups() -> list[Path]:
    return [*GROUPS.glob("anyon/project-*"), *GROUPS.glob("*/anyon/project-*")]


def _of_disk(home: Path, living: dict[str, dict[str, Any]]) -> list[str]:
    wrong = []
    here = {row["path"] for row in living.values() if row["phase"] != "archived"}
    here = {str(Path(path).resolve()) for path in here}
    found = [*home.glob("projects/*/*"), *home.glob("projects-gcs/*/*")]
    files = {str(path.resolve()) for path in found}
    wrong += [f"files at {p}, where no project has any" for p in files - here]
    wrong += [f"no files at {p}" for p in here - files]
    states = {path.name for path in home.glob("state/*")}
    wrong += [f"state of {p}, which is no project" for p in states - living.keys()]
    # A cut upload is no object; the store's driver drops it after a day.
    for place in ("trash/*", "restores/*", "projects/*/.*", "projects-gcs/*/.*", "recovering*"):
        wrong += [f"left behind: {path}" for path in home.glob(place)]
    mounts = Path("/proc/self/mountinfo").read_text()
    return wrong + ([f"a mount below {home}"] if f"{home}/state" in mounts else [])


def _of_store(home: Path, remembered: set[str]) -> list[str]:
    """Look for what is left of projects that were forgotten; a directory's name ends in a sign."""
    found = home.glob("store/objects/*/*")
    places = [p for p in found if is_id(p.name[:-1]) and p.parent.name != "server+"]
    left = [path for path in places if any(one.is_file() for one in path.rglob("*"))]
    return [f"left in the store: {p}" for p in left if p.name[:-1] not in remembered]


def _of_clients(
    settings: Settings,
    known: list[Known],
    living: dict[str, dict[str, Any]],
    dead: dict[str, dict[str, Any]],
) -> list[str]:
    wrong, away = [], []
    for one in known:
        row = living.get(one.id)
        if one.is_deleted:
            wrong += [f"{one.id} was deleted and is there"] if row else []
            away += [(one, dead[one.id])] if one.id in dead else []
        elif row is None:
            wrong.append(f"{one.id} was acknowledged and is gone")
        elif row["phase"] in {"stopped", "archived"}:
            away.append((one, row))
        if row is not None and row["phase"] != "archived":
            wrong += _unlike(one, {n: _text(Path(row["path"]) / n) for n in one.files}, "on disk")
    for one, found in zip([o for o, _ in away], asked(lambda: _saved(settings, away)), strict=True):
        wrong += _unlike(one, found, "in its last checkpoint")
    return wrong


def _unlike(one: Known, found: dict[str, str | None], where: str) -> list[str]:
    return [
        f"{one.id}: {name} is {found[name]!r} {where}, {content!r} was acknowledged"
        for name, content in one.files.items()
        if found[name] != content
    ]


def _text(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


async def _saved(
    settings: Settings, projects: list[tuple[Known, dict[str, Any]]]
) -> list[dict[str, str | None]]:
    """Return what the store has of each project's known files."""
    objects = stores.store(settings)
    assert objects is not None
    checkpoints = Checkpoints(objects, cache=settings.home / "look", clock=SystemClock())
    found = []
    for one, row in projects:
        place = f"{row['user_id']}/{one.id}"
        texts: dict[str, str | None] = {}
        for name in one.files:
            try:
                data = await checkpoints.read(place, None, f"workspace/{name}", limit_bytes=1000)
                texts[name] = data.decode()
            except AnyonError:
                texts[name] = None
        found.append(texts)
    await checkpoints.close()
    return found
