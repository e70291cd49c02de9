"""``anyon rollback``: its use case over this home, without a server; proven by the interface's own answer."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from anyon.config import STORAGE_FILE, Settings
from anyon.domain.errors import AnyonError, ConflictError
from anyon.failpoints import reached
from anyon.services.journals import Kind
from anyon.services.rollbacks import Lost, Rollbacks, Undone
from anyon.wiring import mounts
from anyon.wiring.assembly import Anyon, assembled
from anyon.wiring.pidfile import only_server

__all__ = ["Lost", "Report", "Undone", "roll_back"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was undone, and what ``GET /api/projects`` says after it (names)."""

    kind: str
    projects: Sequence[Undone]
    lost: Sequence[Lost]
    answer: Sequence[str] = field(default_factory=tuple)
    notes: Sequence[str] = field(default_factory=tuple)


async def roll_back(
    settings: Settings,
    *,
    is_dry: bool,
    discard_work: bool,
    tell: Callable[[int, int, str], None],
) -> Report:
    """Undo this home's last migration; no server may use it meanwhile. Cut off anywhere, a repeat ends it.

    ConflictError: ``home_in_use``, ``work_since`` (with all of it in the message; *discard_work*
    loses it), ``rollback_unproven``. NotFoundError ``nothing_to_undo``. UnavailableError where
    the mount does not answer: what was done on it cannot be known.
    """
    with only_server(settings.home, address="rollback"):
        async with assembled(settings) as anyon:
            rollbacks = _rollbacks(anyon)
            kind = await rollbacks.kind()
            lost = await rollbacks.lost(kind)
            if is_dry:
                return Report(kind=kind, projects=(), lost=lost)
            if lost and not discard_work:
                raise _refusal(lost)
            done = await rollbacks.run(kind, tell=tell)
        notes: list[str] = []
        if kind is Kind.TO_MOUNT:
            notes = await _storage_back(settings)
            settings = replace(settings, storage="checkpoints")
        async with assembled(settings) as anyon:
            answer = await _answer(anyon)
            _prove(done, answer)
            _rollbacks(anyon).finish()
        names = [str(one["name"]) for one in answer]
        return Report(kind=kind, projects=done, lost=lost, answer=names, notes=notes)


def _rollbacks(anyon: Anyon) -> Rollbacks:
    services = anyon.services
    return Rollbacks(
        db=services.db,
        engine=anyon.engine,
        projects=services.projects,
        homes=services.homes,
        clock=anyon.clock,
    )


def _refusal(lost: Sequence[Lost]) -> ConflictError:
    words = "; ".join(f"{one.name!r}: {one.words}" for one in lost)
    return ConflictError(
        f"work was done since that would be lost: {words}",
        code="work_since",
        hint="Keep it (push the branches, or `anyon migrate to-checkpoints`), or lose it with --discard-work.",
    )


async def _storage_back(settings: Settings) -> list[str]:
    """Let the mount go, set storage back to what it was, and tell what only the operator can change."""
    notes = []
    # The setting goes last: as long as it names the mount a try that was cut off finds the mount.
    if settings.storage != "checkpoints":
        spec = mounts.spec(settings, uid=0, gid=0)
        try:
            await mounts.mounter(settings).unmount(spec)
        except AnyonError as error:
            notes.append(f"the bucket is still mounted: {error.message}")
    reached("rollback.unmounted")
    replaced = mounts.put_back(settings)
    reached("rollback.storage_put_back")
    if replaced is not None:
        notes.append(
            f"{STORAGE_FILE} is as it was before the mount; what it was lies in {replaced}."
        )
    notes.append(
        "Where ANYON_STORAGE is set in the environment, a unit or config.toml, take it out: it wins."
    )
    return notes


async def _answer(anyon: Anyon) -> Sequence[dict[str, Any]]:
    """Return what ``GET /api/projects`` says, by the application itself."""
    settings = anyon.settings
    key = settings.home / "token"
    headers = {"Host": f"127.0.0.1:{settings.port}"}
    if settings.tokens_required:
        headers["Authorization"] = f"Bearer {key.read_text(encoding='ascii').strip()}"
    transport = httpx.ASGITransport(app=anyon.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get("/api/projects", headers=headers, timeout=60)
    if answer.status_code != 200:
        raise ConflictError(
            f"GET /api/projects answered {answer.status_code}: {answer.text[:500]}",
            code="rollback_unproven",
        )
    found: Sequence[dict[str, Any]] = json.loads(answer.text)["data"]
    return found


def _prove(done: Sequence[Undone], answer: Sequence[dict[str, Any]]) -> None:
    """Raise ConflictError ``rollback_unproven`` where the answer, or a directory, is not as it should be."""
    there = {str(one["id"]) for one in answer}
    wrong = [one.name for one in done if (one.state == "removed") is (one.project in there)]
    wrong += [one.name for one in done if one.path and not Path(one.path).is_dir()]
    if wrong:
        raise ConflictError(
            f"after the rollback these are not as they were: {', '.join(sorted(set(wrong)))}",
            code="rollback_unproven",
            hint="Repeat it; nothing of the former files is deleted.",
        )
