"""What a repository plants to be run by git runs in its container or not at all, never on the host."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from anyon.clock import SystemClock
from anyon.domain.errors import AnyonError
from anyon.domain.layout import RUN, WORKSPACE
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.processes.durable import DurableProcesses
from anyon.testing.engine_trials import GRACE, spec_maker
from anyon.testing.git_trials import Trial

# Each planted command writes its name and the pid namespace it runs in beside the repository.
_PLANT = r"""
mark=$PWD/.git/canary
cat >.git/canary.sh <<'EOF'
common=$(git rev-parse --git-common-dir 2>/dev/null) || common=.git
printf '%s %s\n' "$1" "$(readlink /proc/self/ns/pid)" >>"$common/fired"
EOF
run() { printf 'sh -c "sh \\"\\$(git rev-parse --git-common-dir)/canary.sh\\" %s; %s" --' "$1" "$2"; }
c() { git config "$1" "$2"; }
c filter.x.clean "$(run filter.clean cat)"
c filter.x.smudge "$(run filter.smudge cat)"
c merge.x.driver "$(run merge.driver false)"
c diff.x.command "$(run diff.command :)"
c diff.x.textconv "$(run diff.textconv :)"
for key in core.fsmonitor core.pager core.editor sequence.editor gpg.program core.askPass \
  core.sshCommand diff.external credential.helper core.alternateRefsCommand \
  uploadpack.packObjectsHook interactive.diffFilter browser.x.cmd difftool.x.cmd; do
  c "$key" "$(run "$key" :)"
done
c commit.gpgSign true
c alias.status "!$(run alias :)"
c extensions.partialClone far
c remote.far.promisor true
c remote.far.url "ext::$(run remote.ext :)"
c protocol.ext.allow always
mkdir -p .git/hooks
for hook in post-checkout post-index-change reference-transaction pre-commit prepare-commit-msg \
  commit-msg post-commit pre-merge-commit post-merge pre-rebase post-rewrite pre-auto-gc; do
  printf '#!/bin/sh\nsh "$(git rev-parse --git-common-dir)/canary.sh" hook.%s\n' "$hook" \
    >.git/hooks/$hook
  chmod +x .git/hooks/$hook
done
echo '*.txt filter=x diff=x merge=x' >.gitattributes
rm -f .git/fired
"""


@pytest.fixture
async def planted(tmp_path: Path) -> AsyncIterator[tuple[Trial, Path]]:
    """A running project with every plant, and its directory on the host."""
    engine = BubblewrapEngine(tmp_path / "engine", hidden=[tmp_path])
    spec = spec_maker(tmp_path)()
    places = {mount.target: mount.source for mount in spec.mounts}
    processes = DurableProcesses(engine, lambda _: places[RUN], SystemClock())
    await engine.ensure(spec)
    await engine.start(spec.project)
    trial = Trial(processes=processes, project=spec.project)
    await trial.started()
    await trial.inside(_PLANT)
    yield trial, places[WORKSPACE]
    await processes.close()
    await engine.stop(spec.project, grace=GRACE)
    await engine.remove(spec.project)
    await engine.close()


def _fired(workspace: Path) -> dict[str, set[str]]:
    """Return which plants ran, and in which namespaces."""
    found: dict[str, set[str]] = {}
    path = workspace / ".git" / "fired"
    for line in path.read_text().splitlines() if path.exists() else []:
        name, _, namespace = line.partition(" ")
        found.setdefault(name, set()).add(namespace)
    return found


async def _everything(trial: Trial) -> None:
    """Call every operation that a repository has, the refused and the failing too."""
    repository = trial.repository
    await repository.check_git()
    await repository.init()
    await repository.prepare_imported()
    await repository.branches()
    await repository.current_branch()
    await repository.prepare_spare("main")
    attempt = await trial.attempt()
    await trial.write(f"{attempt.path}/a.txt", b"one\n2\nthree\n")
    await repository.diff(attempt.path, base="main")
    await repository.status(attempt.path, target="main")
    commit = await repository.commit_all(attempt.path, "work")
    assert commit
    await repository.diff_of_commit(commit)
    await trial.write("a.txt", b"one\nzwei\nthree\n")
    await trial.inside(
        "git -c core.hooksPath=/x -c core.fsmonitor=false -c commit.gpgSign=false commit -qam zwei"
    )
    for failing in (
        repository.rebase(attempt.path, target="main"),
        repository.squash_merge(attempt.path, branch="t/one", target="main", message="m"),
        repository.clone("https://localhost:1/x"),
    ):
        with pytest.raises(AnyonError):
            await failing
    second = await trial.attempt("t/two")
    await trial.write(f"{second.path}/new.txt", b"n\n")
    await repository.commit_all(second.path, "new")
    await repository.rebase(second.path, target="main")
    await repository.squash_merge(second.path, branch="t/two", target="main", message="m")
    for each in (attempt, second):
        await repository.remove_worktree(each.id, each.path, branch=each.branch, target="main")
    (saved,) = await repository.saved_work()
    await repository.restore_saved(saved.ref, "back")
    await repository.head()


async def test_nothing_planted_runs_on_the_host(
    planted: tuple[Trial, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filters and merge drivers run, inside; nothing else does; the host starts no git at all."""
    trial, workspace = planted
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "git").write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/host-git\nexit 1\n')
    (shims / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{shims}:{os.environ['PATH']}")
    await _everything(trial)
    fired = _fired(workspace)
    host = str(Path("/proc/self/ns/pid").readlink())
    assert {name.split(".")[0] for name in fired} == {"filter", "merge"}, fired
    assert not any(host in namespaces for namespaces in fired.values()), fired
    assert not (tmp_path / "host-git").exists()


async def test_the_plants_do_fire_where_git_is_run_bare(planted: tuple[Trial, Path]) -> None:
    """Negative control: plain git on the host runs many of them in the host's namespace."""
    _, workspace = planted
    (workspace / "a.txt").write_text("changed on the host\n")
    for words in (["status"], ["add", "a.txt"], ["checkout", "-qb", "x"], ["diff", "HEAD"]):
        process = await asyncio.create_subprocess_exec(
            "git",
            "-c",
            f"safe.directory={workspace}",
            *words,
            cwd=workspace,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await process.wait()
    fired = _fired(workspace)
    host = str(Path("/proc/self/ns/pid").readlink())
    on_host = {name for name, namespaces in fired.items() if host in namespaces}
    assert {"filter.clean", "hook.post-index-change", "core.fsmonitor"} <= on_host, fired
