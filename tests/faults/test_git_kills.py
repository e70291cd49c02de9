"""kill -9 between any two git commands, and while git writes files: nothing is lost or half."""

import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from anyon.domain.errors import AnyonError, ConflictError, MissingError
from anyon.domain.ids import ProjectId, new_id
from anyon.git.repository import Begun
from anyon.testing.git_faults import Killer, was_killed
from anyon.testing.git_sandboxes import SandboxedCommands
from anyon.testing.git_spares import begin, check_whole
from anyon.testing.git_trials import Attempt, Trial

_FILES = 3


@pytest.fixture
def sandbox(tmp_path: Path) -> SandboxedCommands:
    """A sandbox in an empty directory."""
    return SandboxedCommands(tmp_path)


async def _prepared(sandbox: SandboxedCommands) -> Trial:
    trial = Trial(processes=sandbox, project=ProjectId(new_id()))
    await Killer(trial, sandbox).prepare()
    await trial.inside('git config --global filter.k.smudge "$HOME/shim/smudge"')
    return trial


def _copy(sandbox: SandboxedCommands, trial: Trial) -> Trial:
    """Return a trial that begins where *trial* is: paths inside are the same in both."""
    copy = Trial(processes=sandbox, project=ProjectId(new_id()))
    for place in (sandbox.workspace, sandbox.home):
        shutil.copytree(place(trial.project), place(copy.project), True, dirs_exist_ok=True)
    return copy


async def _killed_everywhere(
    sandbox: SandboxedCommands,
    start: Trial,
    operation: Callable[[Trial], Awaitable[object]],
    *,
    moments: tuple[str, ...] = ("before",),
    first: int = 1,
) -> AsyncIterator[Trial]:
    """Yield a copy of *start* for each point at which *operation* can be killed, after the kill."""
    for moment in moments:
        for number in itertools.count(first):
            trial = _copy(sandbox, start)
            killer = Killer(trial, sandbox)
            if moment == "while writing":
                killer.arm_smudge(number)
            else:
                killer.arm(number, moment)
            try:
                await operation(trial)
            except AnyonError as error:
                if not was_killed(error):
                    raise
            else:
                assert number > first + 1, "the operation was never killed: the test is blind"
                break
            finally:
                killer.disarm()
            yield trial
            shutil.rmtree(sandbox.workspace(trial.project).parent)


async def _ready_to_merge(trial: Trial, target: str = "main") -> Attempt:
    await trial.started()
    await trial.inside(
        f"""echo '*.t filter=k' >.gitattributes
        for n in $(seq {_FILES}); do seq $n 200 >$n.t; done; echo gone >gone; git add -A
        git commit -qm t"""
    )
    attempt = await trial.attempt(base=target)
    await trial.inside(
        f"""cd {attempt.path}; for n in $(seq {_FILES}); do echo new >>$n.t; done
        git rm -q gone; mkdir sub; echo new >sub/new.t; git add -A; git commit -qm work
        cd /workspace; echo mine >>src/b.txt; echo loose >loose"""
    )
    return attempt


_MERGED = """
[ "$(git log --format=%s main | head -n1)" = merged ]
[ "$(git log --format=%s main | grep -c merged)" = 1 ]
[ "$(git status --porcelain)" = " M src/b.txt
?? loose" ]
for n in $(seq 3); do [ "$(tail -n1 $n.t)" = new ]; done
[ "$(cat sub/new.t)" = new ] && [ ! -e gone ] && [ "$(tail -n1 src/b.txt)" = mine ]
git fsck --no-dangling >&2
"""


@pytest.mark.parametrize("moment", ["before", "after", "while writing"])
async def test_a_killed_merge_is_whole_or_not_there(
    sandbox: SandboxedCommands, moment: str
) -> None:
    """The target is old or new after any kill; a repeat ends at the merge, once, files and all."""
    start = await _prepared(sandbox)
    attempt = await _ready_to_merge(start)
    old = (await start.inside("git rev-parse main")).strip()

    async def merge(trial: Trial) -> object:
        return await trial.repository.squash_merge(
            attempt.path, branch="t/one", target="main", message="merged"
        )

    points, first = 0, 1 if moment == "while writing" else 6  # the calls before only look
    async for trial in _killed_everywhere(sandbox, start, merge, moments=(moment,), first=first):
        points += 1
        log = await trial.inside("git log --format='%H %s' main")
        first, second = log.splitlines()[:2]
        assert first.startswith(old) or (first.endswith(" merged") and second.startswith(old))
        if points % 2:  # whatever comes first puts it right
            await trial.repository.prepare_imported()
            status = await trial.inside("git status --porcelain")
            assert status == " M src/b.txt\n?? loose\n"
        await merge(trial)
        await trial.inside(_MERGED)
    assert points > _FILES


async def test_the_usual_way_of_merging_fails_this_test(sandbox: SandboxedCommands) -> None:
    """Negative control: a checkout that is merged by `git merge --squash` is left half merged."""
    start = await _prepared(sandbox)
    await _ready_to_merge(start)
    killer = Killer(start, sandbox)
    killer.arm_smudge(3)
    with pytest.raises(AssertionError):
        await start.inside("git merge -q --squash t/one >&2; git commit -qm merged")
    killer.disarm()
    with pytest.raises(AssertionError):
        await start.inside("git merge -q --squash t/one >&2; git commit -qm merged")


async def test_work_that_is_nobodys_copy_is_kept_by_the_recovery(
    sandbox: SandboxedCommands,
) -> None:
    """A file that was edited after the kill is neither version, and stays as it was edited."""
    trial = await _prepared(sandbox)
    attempt = await _ready_to_merge(trial)
    killer = Killer(trial, sandbox)
    killer.arm_smudge(3)
    with pytest.raises(AnyonError) as raised:
        await trial.repository.squash_merge(
            attempt.path, branch="t/one", target="main", message="merged"
        )
    assert was_killed(raised.value)
    killer.disarm()
    await trial.inside("echo precious >1.t")
    await trial.repository.prepare_imported()
    assert await trial.inside("cat 1.t; git status --porcelain 2.t 3.t") == "precious\n"


async def test_a_killed_start_is_repeated(sandbox: SandboxedCommands) -> None:
    """A worktree whose making was killed anywhere is whole after a repeat."""
    start = await _prepared(sandbox)
    base = (await _ready_to_merge(start)) and await start.repository.head()
    attempt = new_id()

    async def add(trial: Trial) -> object:
        return await trial.repository.add_worktree(attempt, branch="t/two", base="main")

    async for trial in _killed_everywhere(sandbox, start, add, moments=("before", "while writing")):
        path = await add(trial)
        assert await trial.repository.head(path) == base
        assert await trial.inside(f"cd {path}; git status --porcelain; git branch --show") == (
            "t/two\n"
        )


async def test_a_killed_making_of_a_spare_is_repeated(sandbox: SandboxedCommands) -> None:
    """Wherever it was killed, no half-made spare is ever taken, and the next one is whole."""
    start = await _prepared(sandbox)
    await _ready_to_merge(start)

    async def prepare(trial: Trial) -> object:
        await trial.repository.prepare_spare("main")
        return None

    points = 0
    async for trial in _killed_everywhere(
        sandbox, start, prepare, moments=("before", "while writing")
    ):
        points += 1
        if points % 2:
            await prepare(trial)
        await check_whole(trial, await begin(trial, "t/two"), "t/two")
        await prepare(trial)
        assert await trial.inside("ls -A .worktrees | grep -c spare") == "1\n"
        await check_whole(trial, await begin(trial, "t/three"), "t/three")


@pytest.mark.parametrize("is_stale", [False, True])
async def test_a_killed_taking_of_a_spare_is_repeated(
    sandbox: SandboxedCommands, *, is_stale: bool
) -> None:
    """A kill between any two steps leaves an attempt that a repeat makes whole, on its own commit."""
    start = await _prepared(sandbox)
    await _ready_to_merge(start)
    await start.repository.prepare_spare("main")
    if is_stale:
        await start.inside("git commit -qam mine")
    base = await start.repository.head()
    for name in ("mv", "rm"):  # steps that are no git: counted with them
        shim = sandbox.home(start.project) / "shim" / name
        git = sandbox.home(start.project) / "shim" / "git"
        shim.write_text(git.read_text().replace("/usr/bin/git", f"/usr/bin/{name}"))
        shim.chmod(0o755)
    attempt = new_id()

    async def add(trial: Trial) -> object:
        return await trial.repository.add_worktree(attempt, branch="t/two", base="main")

    points = 0
    async for trial in _killed_everywhere(sandbox, start, add, moments=("after",)):
        points += 1
        path = await add(trial)
        assert await trial.repository.head(path) == base
        await check_whole(trial, Begun(path=path, head=base, base="main"), "t/two")
        await trial.repository.prepare_spare("main")
        await check_whole(trial, await begin(trial, "t/three"), "t/three")
    assert points >= (7 if is_stale else 4)


async def test_a_killed_removal_loses_nothing(sandbox: SandboxedCommands) -> None:
    """Work is saved once, whole, wherever the removal was killed."""
    start = await _prepared(sandbox)
    attempt = await _ready_to_merge(start)
    await start.inside(f"cd {attempt.path}; echo u >untracked; echo c >>a.txt")

    async def remove(trial: Trial) -> object:
        return await trial.repository.remove_worktree(
            attempt.id, attempt.path, branch="t/one", target="main"
        )

    async for trial in _killed_everywhere(sandbox, start, remove):
        await remove(trial)
        (saved,) = await trial.repository.saved_work()
        assert await trial.inside(
            f"git show {saved.commit}:untracked {saved.commit}:sub/new.t"
        ) == ("u\nnew\n")
        assert await trial.inside("ls -A .worktrees; git branch") == "* main\n"


async def test_a_half_deleted_worktree_is_not_taken_for_work(sandbox: SandboxedCommands) -> None:
    """Where the deletion itself was killed, what was saved before it is what is kept."""
    trial = await _prepared(sandbox)
    attempt = await _ready_to_merge(trial)
    await trial.inside(f"cd {attempt.path}; echo u >untracked")
    remover = sandbox.home(trial.project) / "shim" / "rm"
    remover.write_text(
        """#!/bin/sh
        for file; do
          if [ -d "$file/src" ]; then /bin/rm -r "$file/src"; kill -9 -1; kill -9 $$; fi
        done
        exec /bin/rm "$@"
        """
    )
    remover.chmod(0o755)
    sandbox.path = "/home/anyon/shim:"

    async def remove() -> None:
        await trial.repository.remove_worktree(
            attempt.id, attempt.path, branch="t/one", target="main"
        )

    with pytest.raises(AnyonError) as raised:
        await remove()
    assert was_killed(raised.value)
    sandbox.path = ""
    await remove()
    (saved,) = await trial.repository.saved_work()
    names = await trial.inside(f"git ls-tree -r --name-only {saved.commit}")
    assert {"src/b.txt", "untracked"} <= set(names.split())
    assert await trial.inside("ls -A .worktrees") == ""


async def test_what_cannot_be_saved_is_not_removed(sandbox: SandboxedCommands) -> None:
    """Where a file cannot be read, the removal says so and the worktree is as it was."""
    trial = await _prepared(sandbox)
    attempt = await _ready_to_merge(trial)
    await trial.inside(f"cd {attempt.path}; echo u >untracked; git init -q nested")
    files = f"cd {attempt.path}; find . -path ./.git -prune -o -print | sort; git status --short"
    before = await trial.inside(files)
    unable = sandbox.home(trial.project) / "shim" / "git"
    unable.write_text('#!/bin/sh\n[ "$3" != add ] || exit 1\nexec /usr/bin/git "$@"\n')
    sandbox.path = "/home/anyon/shim:"
    with pytest.raises(ConflictError) as raised:
        await trial.repository.remove_worktree(
            attempt.id, attempt.path, branch="t/one", target="main"
        )
    assert raised.value.code == "save_incomplete"
    sandbox.path = ""
    assert await trial.inside(files) == before
    assert await trial.repository.saved_work() == []


async def test_a_killed_rebase_and_commit_are_repeated(sandbox: SandboxedCommands) -> None:
    """A rebase of ours that was cut off is undone and done; a commit is made once."""
    start = await _prepared(sandbox)
    attempt = await _ready_to_merge(start)
    await start.inside("echo m >m; git add m; git commit -qm m")

    async def rebase(trial: Trial) -> object:
        return await trial.repository.rebase(attempt.path, target="main")

    async for trial in _killed_everywhere(sandbox, start, rebase):
        await rebase(trial)
        status = await trial.repository.status(attempt.path, target="main")
        assert (status.ahead, status.behind, status.uncommitted) == (1, 0, 0)
        assert not status.is_rebase_in_progress
    await start.inside(f"cd {attempt.path}; echo u >untracked")

    async def commit(trial: Trial) -> object:
        return await trial.repository.commit_all(attempt.path, "all")

    async for trial in _killed_everywhere(sandbox, start, commit):
        await commit(trial)
        assert await trial.inside(f"git log --format=%s {attempt.branch} | head -n2") == (
            "all\nwork\n"
        )


async def test_a_killed_beginning_is_repeated(sandbox: SandboxedCommands) -> None:
    """Init and clone end in a whole repository after any kill and a repeat."""
    start = await _prepared(sandbox)
    await start.inside("echo x >x")

    async def init(trial: Trial) -> object:
        return await trial.repository.init()

    async for trial in _killed_everywhere(sandbox, start, init):
        await init(trial)
        assert await trial.inside("git status --porcelain; git ls-files") == ".gitignore\nx\n"
    far = await _prepared(sandbox)
    await far.inside(
        """git init -q "$HOME/far"; cd "$HOME/far"; echo x >x; git add x; git commit -qm x
        printf '#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n' >"$HOME/ssh"
        chmod +x "$HOME/ssh"; git config --global core.sshCommand "$HOME/ssh"
        git config --global ssh.variant simple"""
    )

    async def clone(trial: Trial) -> object:
        return await trial.repository.clone("ssh://localhost/home/anyon/far")

    async for trial in _killed_everywhere(sandbox, far, clone):
        await clone(trial)
        assert await trial.inside("git status --porcelain; cat x; ls -A") == "x\n.git\nx\n"


async def test_locks_of_killed_gits_are_removed(sandbox: SandboxedCommands) -> None:
    """A lock file that no living git can hold does not stand in the way."""
    trial = await _prepared(sandbox)
    attempt = await _ready_to_merge(trial)
    await trial.inside(
        ": >.git/index.lock; : >.git/refs/heads/main.lock; : >.git/refs/heads/t/one.lock"
    )
    await trial.repository.squash_merge(
        attempt.path, branch="t/one", target="main", message="merged"
    )
    await trial.inside(_MERGED)


async def test_a_target_that_moves_meanwhile_is_merged_again(sandbox: SandboxedCommands) -> None:
    """A commit that comes onto the target during the merge is kept, and merged with."""
    trial = await _prepared(sandbox)
    attempt = await _ready_to_merge(trial)
    mover = sandbox.home(trial.project) / "shim" / "smudge"
    mover.write_text(
        """#!/bin/sh
        cd /workspace
        if mkdir .git/moved 2>/dev/null; then
          git update-ref refs/heads/main "$(git -c user.name=x -c user.email=x@x commit-tree \
            -p main -m meanwhile 'main^{tree}')"
        fi
        cat
        """
    )
    await trial.repository.squash_merge(
        attempt.path, branch="t/one", target="main", message="merged"
    )
    log = await trial.inside("git log --format=%s main | head -n3")
    assert log == "merged\nmeanwhile\nt\n"
    await trial.inside(_MERGED)


async def test_a_git_that_is_missing_or_old_is_said(sandbox: SandboxedCommands) -> None:
    """Both are MissingError with a code and a hint, for every operation."""
    trial = await _prepared(sandbox)
    await trial.started()
    shim = sandbox.home(trial.project) / "shim"
    sandbox.path = "/home/anyon/shim:"
    (shim / "git").write_text("#!/bin/sh\necho git version 2.30.2\n")
    with pytest.raises(MissingError) as old:
        await trial.repository.check_git()
    assert old.value.code == "git_too_old"
    (shim / "git").unlink()
    (shim / "sh").symlink_to("/bin/sh")
    sandbox.programs = "/home/anyon/shim"
    for call in (trial.repository.check_git(), trial.repository.branches()):
        with pytest.raises(MissingError) as missing:
            await call
        assert missing.value.code == "git_missing"
        assert missing.value.hint
