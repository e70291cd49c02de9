"""Stories of a project's life in which a server dies: made, woken, frozen, stopped, archived, deleted."""

import os
import signal
import subprocess

from tests.faults.agreement import Known
from tests.faults.failpoint_stages import After, Stage


def create(stage: Stage, point: str) -> None:
    """Make a project."""
    stage.server.arm(point)
    stage.create()


def import_one(stage: Stage, point: str) -> None:
    """Make a project of a local repository."""
    source = stage.home.with_name("source")
    if not source.exists():
        subprocess.run(["git", "init", "-q", source], check=True)
        (source / "file").write_text("imported\n")
    stage.server.arm(point)
    stage.create(git_repo_path=str(source))


def create_undo(stage: Stage, point: str) -> None:
    """Die in a creation, and again while the next life takes it back."""
    create(stage, "create.repository_made")
    assert stage.server.end() == -signal.SIGKILL
    stage.server.start(point)


def start(stage: Stage, point: str) -> None:
    """Work on a stopped project."""
    wake(stage, stage.asleep("stopped", stop=1), point)


def thaw(stage: Stage, point: str) -> None:
    """Work on a frozen project."""
    wake(stage, stage.asleep("frozen", freeze=1), point)


def bring_back(stage: Stage, point: str) -> None:
    """Work on a project whose files are in the store only."""
    wake(stage, stage.archived(), point)


def wake(stage: Stage, one: Known, point: str) -> None:
    """Ask for work in a project that sleeps."""
    stage.server.arm(point)
    stage.attempt("POST", f"/api/projects/{one.id}/exec", {"argv": ["true"]})


def freeze(stage: Stage, point: str) -> None:
    """Let a project be idle until it is frozen."""
    one = stage.running()
    stage.server.arm(point)
    stage.times(one, freeze=1)


def stop(stage: Stage, point: str) -> None:
    """Let a project be idle until it is stopped."""
    one = stage.running()
    stage.server.arm(point)
    stage.times(one, stop=1)


def archive(stage: Stage, point: str) -> None:
    """Let a project be idle until its files are let go."""
    one = stage.running()
    stage.server.arm(point)
    stage.times(one, stop=1, archive=1)


def delete(stage: Stage, point: str) -> None:
    """Delete a project: from its tombstone on there is no way back but the undo."""
    one = stage.running()
    stage.server.arm(point)
    one.is_deleted = True
    stage.attempt("DELETE", f"/api/projects/{one.id}")


def undelete(stage: Stage, point: str) -> None:
    """Bring a deleted project back."""
    one = stage.running()
    stage.server.call("DELETE", f"/api/projects/{one.id}")
    stage.server.arm(point)
    stage.attempt("POST", f"/api/deleted-projects/{one.id}/restore")


def purge(stage: Stage, point: str) -> None:
    """Forget a deleted project, as the reaper does first of all in each life."""
    one = stage.running()
    stage.server.call("DELETE", f"/api/projects/{one.id}")
    one.is_deleted = True
    stage.server.kill()
    stage.server.start(point, ANYON_UNDO_WINDOW="0s")


def adopt(stage: Stage, point: str) -> After:
    """Die while a program runs, and again while the next life takes it up."""
    one = stage.running()
    script = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; sleep 0.05; done"
    argv = {"argv": ["sh", "-c", script]}
    made = stage.server.call("POST", f"/api/projects/{one.id}/exec", argv)
    stage.server.kill()
    stage.server.start(point)

    def after() -> None:
        lines = "".join(f"line {number}\n" for number in range(1, 41))
        assert stage.server.printed(made["id"]) == lines

    return after


def repair(stage: Stage, point: str) -> None:
    """Lose a container while no server looks, and die in the repair of what is recorded."""
    one = stage.running()
    stage.server.kill()
    if stage.engine == "docker":
        subprocess.run(["docker", "kill", f"project-{one.id}"], check=True, capture_output=True)
    else:
        os.kill(stage.pid(one), signal.SIGKILL)
    stage.server.start(point)
