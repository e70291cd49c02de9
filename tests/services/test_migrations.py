"""An old installation comes in whole, whatever its names and states; it is only read; repeats go on."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from anyon.agents.registry import find
from anyon.clock import SystemClock
from anyon.db import old_databases
from anyon.domain import prompts
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.domain.errors import InvalidInputError, NotFoundError
from anyon.domain.ids import AttemptId, ProjectId, TaskId
from anyon.domain.states import TaskStatus
from anyon.services import old_layouts, old_pictures
from anyon.services.migrations import Migrations
from anyon.services.old_layouts import OldLayout
from anyon.services.outcomes import Outcome, Report
from anyon.testing.old_installations import OldInstallation, snapshot
from anyon.testing.worlds import World, living

pytestmark = pytest.mark.timeout(300)
PNG = b"\x89PNG\r\n\x1a\n"
OLD_PLACE = "/var/opt/anyon"
LOST = {
    "changed.png": "old_image_differs",
    "missing.png": "old_image_missing",
    "program.png": "image_unreadable",
    "linked.png": "old_image_missing",
    "escaping.png": "old_image_missing",
}
"""Images that do not come in, and why."""
ODD = "odd/../name $(id) 'q'"


@pytest.fixture
def old(tmp_path: Path) -> OldInstallation:
    """Eight projects: Korean and odd names, worktrees with work in them, broken and missing ones."""
    made = OldInstallation(tmp_path / "old")
    _demo(made)
    _korean(made)
    made.project(ODD, directory="odd name $(id)", setup_script="npm ci", copy_files="../secret")
    _detached(made)
    broken = made.project("broken")
    commit = made.git(broken, "rev-parse", "HEAD")
    blob = made.git(broken, "rev-parse", f"{commit}:tool")
    damaged = broken / ".git" / "objects" / blob[:2] / blob[2:]
    damaged.chmod(0o644)
    damaged.write_bytes(b"garbage")
    made.task("of the broken", "broken")
    made.project("gone").rename(tmp_path / "elsewhere")
    made.project("piped")
    os.mkfifo(made.root / "workspace" / "piped" / "pipe")
    twin = made.project("twin", directory="twin-2")
    with closing(sqlite3.connect(made.database)) as database, database:
        database.execute("UPDATE projects SET name = 'demo' WHERE name = 'twin'")
    made.task("of the twin", "twin", status="paused", title="bad\x1b[31m title")
    made.attempt("twin attempt", "of the twin", twin, "vk/twin", executor="GPT_PILOT")
    _belongings(made, tmp_path)
    return made


@pytest.fixture
def small(tmp_path: Path) -> OldInstallation:
    """Two of these projects, with all tags and images."""
    made = OldInstallation(tmp_path / "old")
    _demo(made)
    _korean(made)
    _belongings(made, tmp_path)
    return made


def _belongings(made: OldInstallation, elsewhere: Path) -> None:
    """Tags with odd names; images of two tasks, in each place, and such as cannot come in."""
    made.tag("버그 보고", "단계:\n1.")
    made.tag("bad\x1b[31m\nname", "x" * 70_000)
    made.draft("unsent")
    shared = made.image("화면 1.png", PNG + b"shared", "fix it", "한글 일")
    made.image(
        "twice.svg", b"<svg/>", "fix it", place="images", recorded=f"{OLD_PLACE}/x/twice.svg"
    )
    (made.root / "images" / "twice.svg").write_bytes(b"<svg/>")
    made.image(
        "in a folder.png", PNG + b"3", place=".vibe-images", recorded=".vibe-images/other.png"
    )
    (made.root / ".vibe-images" / "other.png").write_bytes(PNG + b"3")
    made.image("changed.png", PNG + b"as recorded", "fix it").write_bytes(PNG + b"as changed")
    made.image("missing.png", PNG + b"missing", "fix it").unlink()
    made.image("program.png", b"#!/bin/sh\n", "fix it")
    linked = made.image("linked.png", PNG + b"outside", "fix it")
    linked.rename(elsewhere / "outside.png")
    linked.symlink_to(elsewhere / "outside.png")
    made.image("escaping.png", PNG + b"up", recorded="../outside-too.png").unlink()
    (elsewhere / "outside-too.png").write_bytes(PNG + b"up")
    with closing(sqlite3.connect(made.database)) as database, database:
        words = f"로그인 ![화면 1](.vibe-images/{shared.name})"
        database.execute("UPDATE tasks SET description = ? WHERE title = 'fix it'", [words])


def _demo(made: OldInstallation) -> None:
    """A project with everything: staged, changed, new and ignored files in a worktree, a merge."""
    demo = made.project("demo")
    made.task("fix it", "demo", status="inprogress", description="로그인")
    made.task("done already", "demo", status="done")
    worktree = made.attempt("fix", "fix it", demo, "vk/1234-fix-it")
    (worktree / "staged.txt").write_text("staged\n")
    made.git(worktree, "add", "staged.txt")
    (worktree / "tool").write_text("#!/bin/sh\nchanged\n")
    (worktree / "새 파일.txt").write_text("untracked\n")
    (worktree / "my.env").write_text("ignored\n")
    other = made.attempt("merged", "done already", demo, "vk/5678-done")
    made.merge("merge", "merged", made.git(other, "rev-parse", "HEAD"))
    made.merge("pull request", "merged", None, kind="pr")
    orphan = made.root / "worktrees" / "nobodys"
    made.git(demo, "worktree", "add", "-q", "-b", "orphan", str(orphan))
    (demo / "uncommitted.txt").write_text("in the main work tree\n")


def _korean(made: OldInstallation) -> None:
    """A Korean name, and a branch that cannot be one of ours."""
    place = made.project("한글 프로젝트")
    made.task("한글 일", "한글 프로젝트", status="todo")
    made.attempt("한글", "한글 일", place, "vk/로그인")


def _detached(made: OldInstallation) -> None:
    """A worktree that stands at a commit which no branch holds."""
    place = made.project("detached")
    made.task("roam", "detached")
    worktree = made.attempt("roaming", "roam", place, "vk/roam")
    made.git(worktree, "checkout", "-q", "--detach")
    (worktree / "lonely.txt").write_text("only here\n")
    made.commit(worktree, "Lonely")


async def migrate(
    world: World, old: OldInstallation, *, is_dry: bool = False, **more: int
) -> Report:
    """Run a migration into the world."""
    services = world.services
    migrations = Migrations(
        db=world.db, projects=services.projects, containers=services.containers,
        repositories=world.repositories, leases=services.leases, homes=services.homes,
        find_agent=find, default_agent="SHELL", clock=SystemClock(), views=services.views,
        **more,
    )  # fmt: skip
    records = old_databases.read(old.database)
    return await migrations.run(OldLayout(old.root), records, is_dry=is_dry)


def outcome(report: Report, old: OldInstallation, key: str) -> Outcome:
    """Return what became of a project."""
    return next(one for one in report.projects if one.id == str(old.ids[key]))


async def project(world: World, old: OldInstallation, key: str) -> Project:
    """Return a project that came in."""
    return await world.services.projects.get(LOCAL_ACTOR, ProjectId(str(old.ids[key])))


async def worktree_of(world: World, old: OldInstallation, key: str, of: str) -> Path:
    """Return where the worktree of an attempt is on this machine."""
    attempt = await world.services.attempts.get(LOCAL_ACTOR, AttemptId(str(old.ids[key])))
    assert attempt.worktree is not None
    assert not attempt.worktree_deleted
    return Path((await project(world, old, of)).path) / ".worktrees" / Path(attempt.worktree).name


async def test_everything_comes_in(world: World, old: OldInstallation) -> None:
    """Five of eight projects are here with every file, the broken, piped and missing ones are told; nothing was touched."""
    before = snapshot(old.root)
    report = await migrate(world, old)
    assert snapshot(old.root) == before
    states = {
        key: outcome(report, old, key).state
        for key in ("demo", "한글 프로젝트", ODD, "detached", "twin")
    }
    assert set(states.values()) == {"migrated"}, report
    for key, code in (("broken", "git_failed"), ("gone", "missing"), ("piped", "special_file")):
        assert outcome(report, old, key).state == "failed"
        assert code in outcome(report, old, key).notes[-1]
    assert report.left == {"drafts": 1}
    assert any("1 unsent drafts" in note for note in report.notes)
    await _the_belongings_are_here(world, old, report)
    assert report.missing == ["task_attempts.setup_completed_at"]
    names = {one.name for one in await world.services.projects.list(LOCAL_ACTOR)}
    assert names == {"demo", "demo (2)", "한글 프로젝트", "odd-..-name $(id) 'q'", "detached"}
    assert any("'nobodys' is no attempt's" in note for note in outcome(report, old, "demo").notes)
    demo = await project(world, old, "demo")
    assert (Path(demo.path) / "uncommitted.txt").read_text() == "in the main work tree\n"
    assert (Path(demo.path) / "secret.env").read_text() == "KEY=1\n"
    odd = await project(world, old, ODD)
    assert (odd.setup_script, odd.copy_files) == ("npm ci", None)
    await _the_attempts_are_here(world, old)


async def _the_attempts_are_here(world: World, old: OldInstallation) -> None:
    attempts, tasks = world.services.attempts, world.services.tasks
    worktree = await worktree_of(world, old, "fix", "demo")
    assert old_layouts.differing(old.root / "worktrees" / "fix", worktree, but=b".git") is None
    status = await attempts.status(LOCAL_ACTOR, AttemptId(str(old.ids["fix"])))
    assert status.branch is not None
    assert (status.branch.ahead, status.branch.uncommitted, status.branch.untracked) == (1, 2, 1)
    merged = await attempts.status(LOCAL_ACTOR, AttemptId(str(old.ids["merged"])))
    assert [merge.id for merge in merged.merges] == [str(old.ids["merge"])]
    korean = await attempts.get(LOCAL_ACTOR, AttemptId(str(old.ids["한글"])))
    assert korean.branch.startswith("anyon/")
    assert (
        await worktree_of(world, old, "한글", "한글 프로젝트") / "work.txt"
    ).read_text() == "한글\n"
    assert (await worktree_of(world, old, "roaming", "detached") / "lonely.txt").exists()
    saved = await _refs(world, await project(world, old, "detached"))
    assert f"refs/anyon/saved/{old.ids['roaming']}/0001" in saved
    twin = await attempts.get(LOCAL_ACTOR, AttemptId(str(old.ids["twin attempt"])))
    assert twin.agent == "SHELL"
    fix = await tasks.get(LOCAL_ACTOR, TaskId(str(old.ids["fix it"])))
    assert fix.task.status is TaskStatus.INREVIEW
    paused = await tasks.get(LOCAL_ACTOR, TaskId(str(old.ids["of the twin"])))
    assert paused.task.status is TaskStatus.TODO
    # What was migrated can be worked on: the dirty worktree is committed and merged.
    commit = await attempts.merge(LOCAL_ACTOR, AttemptId(str(old.ids["fix"])))
    merged_tree = Path((await project(world, old, "demo")).path)
    assert (merged_tree / "staged.txt").exists(), commit


async def _the_belongings_are_here(world: World, old: OldInstallation, report: Report) -> None:
    """Tags and images, told by name where they could not come; what a description shows is there."""
    assert (report.tags, report.images) == (2, 3)
    found = await world.services.tags.list(LOCAL_ACTOR)
    assert [(one.name, len(one.content)) for one in found] == [
        ("bad [31m name", 64 * 1024),
        ("버그 보고", len("단계:\n1.")),
    ]
    assert len(report.lost) == len(LOST)
    for (name, code), words in zip(LOST.items(), report.lost, strict=True):
        assert words.startswith(f"image {name!r} (")
        assert words.endswith(f"[{code}]")
    pictures = world.services.pictures
    fix = await pictures.of_task(LOCAL_ACTOR, TaskId(str(old.ids["fix it"])))
    assert [one.name for one in fix] == ["화면 1.png", "twice.svg"]
    assert await pictures.of_task(LOCAL_ACTOR, TaskId(str(old.ids["한글 일"]))) == fix[:1]
    assert await pictures.content(LOCAL_ACTOR, fix[0].id) == (fix[0], PNG + b"shared")
    task = (await world.services.tasks.get(LOCAL_ACTOR, TaskId(str(old.ids["fix it"])))).task
    assert list(prompts.pictures_in(task.description or "")) == [fix[0].file]
    assert outcome(report, old, "demo").images == 2


async def _refs(world: World, one: Project) -> str:
    done = await asyncio.to_thread(
        subprocess.run,
        ["git", "-c", "safe.directory=*", "-C", one.path, "for-each-ref", "--format=%(refname)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return str(done.stdout)


async def test_a_repeat_changes_nothing(world: World, old: OldInstallation) -> None:
    """What is here is left as it is; what failed and was repaired comes in."""
    await migrate(world, old)
    worktree = await worktree_of(world, old, "fix", "demo")
    (worktree / "later.txt").write_text("work in the new place\n")
    (old.root / "workspace" / "piped" / "pipe").unlink()
    report = await migrate(world, old)
    assert outcome(report, old, "piped").state == "migrated"
    demo = outcome(report, old, "demo")
    assert (demo.state, demo.tasks, demo.attempts, demo.merges) == ("there", 0, 0, 0)
    assert (demo.images, report.tags, report.images, len(report.lost)) == (0, 0, 0, len(LOST))
    assert (worktree / "later.txt").exists()


async def test_a_run_that_was_cut_off_is_finished(
    world: World, old: OldInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that dies amid images, a project, or a worktree is completed by the next."""
    for broken in ("old_belongings._add", "migrations._prove_refs", "takeovers.swap"):
        with monkeypatch.context() as patch:
            patch.setattr(f"anyon.services.{broken}", _dies)
            with pytest.raises(Killed):
                await migrate(world, old)
    report = await migrate(world, old)
    assert sum(one.state != "failed" for one in report.projects) == 5
    fix = TaskId(str(old.ids["fix it"]))
    assert len(await world.services.pictures.of_task(LOCAL_ACTOR, fix)) == 2
    assert len(await world.services.tags.list(LOCAL_ACTOR)) == 2
    worktree = await worktree_of(world, old, "fix", "demo")
    assert old_layouts.differing(old.root / "worktrees" / "fix", worktree, but=b".git") is None
    assert not list((world.home / "restores").iterdir())


class Killed(BaseException):
    """What no handler of ours catches: nothing is taken back, as after a kill."""


def _dies(*_: object) -> None:
    raise Killed


async def test_images_come_when_they_are_repaired(world: World, small: OldInstallation) -> None:
    """A repeat brings an image whose file is there by now; one of a content that is here already is that one."""
    here = await world.services.pictures.upload(LOCAL_ACTOR, "mine.png", PNG + b"shared")
    await migrate(world, small)
    changed = next((small.root / "data" / "images").glob("*_changed.png"))
    changed.write_bytes(PNG + b"as recorded")
    report = await migrate(world, small)
    assert (report.images, outcome(report, small, "demo").images) == (1, 1)
    task = TaskId(str(small.ids["fix it"]))
    attached = await world.services.pictures.of_task(LOCAL_ACTOR, task)
    assert [one.name for one in attached] == ["mine.png", "twice.svg", "changed.png"]
    description = (await world.services.tasks.get(LOCAL_ACTOR, task)).task.description
    assert f"![화면 1](.vibe-images/{here.file})" in (description or "")


async def test_images_that_are_too_much(tmp_path: Path, small: OldInstallation) -> None:
    """What is over the quota is told by name with what to set, and the rest comes in."""
    async with living(tmp_path / "home") as world:
        report = await migrate(world, small, picture_quota=20)
        assert report.images == 2
        assert any("in a folder.png" in words and "[images_full]" in words for words in report.lost)
        assert outcome(report, small, "demo").state == "migrated"


def test_without_the_defence_a_link_would_be_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with flags that follow links, what lies outside comes in."""
    (tmp_path / "root" / "images").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root" / "images" / "x.png").symlink_to(tmp_path / "secret")
    (tmp_path / "root" / "data").symlink_to(tmp_path)
    assert list(old_pictures.contents(tmp_path / "root", "x.png")) == []
    assert list(old_pictures.contents(tmp_path / "root", "data/secret")) == []
    assert list(old_pictures.contents(tmp_path / "root", "../secret")) == []
    for name in ("_FILE", "_DIRECTORY"):
        monkeypatch.setattr(old_pictures, name, getattr(old_pictures, name) & ~os.O_NOFOLLOW)
    assert list(old_pictures.contents(tmp_path / "root", "x.png")) == [b"secret"]
    assert b"secret" in old_pictures.contents(tmp_path / "root", "data/secret")


async def test_a_dry_run_only_looks(world: World, old: OldInstallation) -> None:
    """It says what would come, and makes nothing."""
    before = snapshot(old.root)
    report = await migrate(world, old, is_dry=True)
    demo = outcome(report, old, "demo")
    assert (demo.state, demo.tasks, demo.attempts, demo.worktrees) == ("planned", 2, 2, 2)
    assert (report.tags, report.images, len(report.lost)) == (2, 3, len(LOST))
    assert await world.services.tags.list(LOCAL_ACTOR) == []
    assert outcome(report, old, "gone").state == "failed"
    assert await world.services.projects.list(LOCAL_ACTOR) == []
    assert snapshot(old.root) == before


def test_the_comparison_is_not_blind(tmp_path: Path) -> None:
    """A byte, a mode, a link's target and a missing file are each seen."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("same")
        (tmp_path / name / "link").symlink_to("file")
    source, copy = tmp_path / "a", tmp_path / "b"
    assert old_layouts.differing(source, copy) is None
    (copy / "file").chmod(0o755)
    assert old_layouts.differing(source, copy) == b"file"
    (copy / "file").chmod((source / "file").stat().st_mode)
    (copy / "link").unlink()
    (copy / "link").symlink_to("elsewhere")
    assert old_layouts.differing(source, copy) == b"link"
    (copy / "link").unlink()
    assert old_layouts.differing(source, copy) == b"link"


def run(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line."""
    bare = {key: value for key, value in os.environ.items() if not key.startswith("ANYON_")}
    return subprocess.run(
        [sys.executable, "-c", "from anyon.cli.main import main; main()", "migrate", *arguments],
        env=bare | {"HOME": str(home), "ANYON_HOME": str(home / "anyon"), "ANYON_ENGINE": "memory"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command(tmp_path: Path) -> None:
    """A dry run leaves no home; the run says what it did; a repeat too; a wrong directory is an error."""
    made = OldInstallation(tmp_path / "old")
    _demo(made)
    options = ["from-layout", "--from", str(made.root), "--json"]
    done = run(tmp_path, *options, "--dry-run")
    assert json.loads(done.stdout)["projects"][0]["state"] == "planned", done.stderr
    assert not (tmp_path / "anyon").exists()
    for state in ("migrated", "there"):
        done = run(tmp_path, *options)
        assert (done.returncode, json.loads(done.stdout)["projects"][0]["state"]) == (0, state)
    done = run(tmp_path, "from-layout", "--from", str(tmp_path / "anyon"))
    assert done.returncode == 1
    assert "path_inside_home" in done.stderr


def test_what_is_no_old_installation(tmp_path: Path) -> None:
    """A wrong directory and a file that is no database are told as such."""
    with pytest.raises(NotFoundError):
        OldLayout(tmp_path)
    with pytest.raises(NotFoundError):
        old_databases.read(tmp_path / "data" / "anyon.db")
    (tmp_path / "anyon.db").write_text("no database at all, but long enough to be looked at\n" * 9)
    with pytest.raises(InvalidInputError):
        old_databases.read(tmp_path / "anyon.db")
