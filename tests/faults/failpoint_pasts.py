"""Stories of going back in which a server dies: forks, single paths, worktrees, what was installed."""

import shutil
import subprocess
from typing import Any

from tests.faults.agreement import Known, rows
from tests.faults.failpoint_stages import NOTHING, After, Archive, Stage
from tests.faults.mortal_servers import asked, wait_for

from anyon.storage import archives, forks
from anyon.storage.drivers.files import FilesStore
from anyon.storage.keys import PlainKeys
from anyon.wiring import stores

_BEFORE = frozenset({"path_restore.saved", "path_restore.recorded", "path_restore.staged"})
_AT_REST = frozenset({"path_restore.recorded", "path_restore.confirmed"})


def fork_off(stage: Stage, point: str) -> After:
    """Fork a project: afterwards there is a fork that works, or nothing of it anywhere."""
    one = stage.running()
    saved, name = stage.save(one), f"fork{stage.count()}"
    stage.server.arm(point)
    stage.attempt("POST", f"/api/projects/{one.id}/checkpoints/{saved}/fork", {"name": name})

    def after() -> None:
        borrowers = asked(lambda: _borrowers(stage, one))
        assert borrowers <= rows(stage.home).keys(), f"{borrowers} borrow and are no projects"
        found = [p["id"] for p in stage.server.call("GET", "/api/projects") if p["name"] == name]
        for project in found:
            assert project in borrowers
            names = sorted(one.files)
            said = stage.server.run(project, f"cat {' '.join(names)}")
            assert said == "".join(one.files[name] for name in names)

    return after


async def _borrowers(stage: Stage, lender: Known) -> set[str]:
    """Return the projects of which the store says that they borrow from *lender*."""
    store = stores.store(stage.server.settings())
    assert store is not None
    place = f"{rows(stage.home)[lender.id]['user_id']}/{lender.id}"
    found = forks.loans_of(archives.Archive(store, PlainKeys(), place)).forks
    return {borrower.rpartition("/")[2] for borrower in found}


def give_back(stage: Stage, point: str) -> None:
    """Collect a fork that needs nothing more of a deleted project: with it the last of that goes."""
    archive = Archive(stage.home.with_name(f"archive{stage.count()}"))

    async def fill() -> None:
        use = archive.checkpoints(0)
        for number in range(3):
            (archive.tree / f"file{number}").write_text(f"{number}")
            saved = await use.save("u/p", {"workspace": archive.tree})
        await use.fork("u/p", saved.checkpoint.id, "u/f", rows=b"{}")
        await use.delete("u/p")
        shutil.rmtree(archive.tree)
        archive.tree.mkdir()
        (archive.tree / "own").write_text("own")
        await use.save("u/f", {"workspace": archive.tree})
        await use.close()

    async def sweep(hours: int) -> None:
        use = archive.checkpoints(hours)
        await use.collect("u/f", grace=NOTHING)
        await use.close()

    async def look() -> None:
        use = archive.checkpoints(9)
        assert not (await use.verify("u/f", read_data=True)).problems
        store = FilesStore(archive.root / "store")
        assert [info.key for info in store.list("u/p/")] == []
        assert forks.lenders_of(archives.Archive(store, PlainKeys(), "u/f")) == ()
        await use.close()

    archive.life(fill)
    archive.life(lambda: sweep(3), point)
    archive.life(lambda: sweep(6))
    archive.life(look)


def put_back(stage: Stage, point: str) -> None:
    """Bring one file back, of a project that runs or rests: it is as it was, or as it was then."""
    one = stage.running()
    stage.write(one)
    then, saved = dict(one.files), stage.save(one)
    stage.write(one)
    stage.write(one)
    if point in _AT_REST:
        stage.times(one, stop=1)
        wait_for(lambda: stage.phase(one) == "stopped", "the project to be stopped")
        stage.times(one)
    stage.server.arm(point)
    body = {"path": "workspace/file0"}
    stage.attempt("POST", f"/api/projects/{one.id}/checkpoints/{saved}/restore", body)
    if point not in _BEFORE:
        one.files["file0"] = then["file0"]


def bring_worktree_back(stage: Stage, point: str) -> After:
    """Bring the worktree of an attempt back that was cleaned; asked again it is there, with git's part."""
    one = stage.running()
    body = {"project_id": one.id, "description": "echo work >work; git add -A; git commit -qm work"}
    task = stage.server.call("POST", "/api/tasks", body)
    path = f"/api/tasks/{task['id']}"
    wait_for(lambda: stage.server.call("GET", path)["status"] == "inreview", "the task's end")
    stage.rest(one)
    (attempt,) = stage.server.call("GET", f"/api/task-attempts?task_id={task['id']}")
    saved = stage.save(one)
    stage.server.call("DELETE", f"/api/task-attempts/{attempt['id']}/worktree")
    stage.rest(one)
    where = f"/api/projects/{one.id}/checkpoints/{saved}/restore"
    wish = {"attempt_id": attempt["id"], "force": True}
    stage.server.arm(point)
    stage.attempt("POST", where, wish)

    def after() -> None:
        stage.server.call("POST", where, wish)
        found: Any = stage.server.call("GET", f"/api/task-attempts/{attempt['id']}")
        assert found["worktree_deleted"] is False
        said = stage.server.run(one.id, "cat .worktrees/*/work; git -C .worktrees/* status --short")
        assert said == "work\n"
        stage.server.call("DELETE", f"/api/task-attempts/{attempt['id']}/worktree")
        stage.rest(one)

    return after


def refit(stage: Stage, point: str) -> After:
    """Lose what is installed beside a project's files; its next work has it again from the store."""
    one = stage.running()
    word = f"tool {stage.count()}"
    # Programs in Docker are nobody special; the embedded engine gives its own /var/tmp to each life.
    tool = "/var/tmp/tool" if stage.engine == "docker" else "/usr/local/tool"
    stage.server.run(one.id, f"echo {word} >{tool}")
    stage.rest(one)
    stage.times(one, stop=1)
    wait_for(lambda: stage.phase(one) == "stopped", "the project to be stopped")
    stage.times(one)
    if stage.engine == "docker":
        subprocess.run(["docker", "rm", "-f", f"project-{one.id}"], check=True, capture_output=True)
    else:
        shutil.rmtree(stage.home / "state" / one.id / "system")
    stage.server.arm(point)
    stage.attempt("POST", f"/api/projects/{one.id}/exec", {"argv": ["true"]})

    def after() -> None:
        assert stage.server.run(one.id, f"cat {tool}") == f"{word}\n"
        stage.rest(one)

    return after
