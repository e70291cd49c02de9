"""Worktrees from their making to their removal: a part of the repository contract."""

import asyncio

import pytest

from anyon.domain.errors import ConflictError, NotFoundError
from anyon.domain.ids import AttemptId, new_id
from anyon.domain.layout import WORKSPACE, WORKTREES
from anyon.testing.git_trials import Trial


class WorktreesContract:
    """add, commit, status, remove, saved work."""

    async def test_a_worktree_is_made_once(self, trial: Trial) -> None:
        """The path holds the whole id and the branch; it is locked; a repeat returns it as it is."""
        base = await trial.started()
        attempt = await trial.attempt("an/1234-login")
        assert attempt.path == WORKTREES / f"{attempt.id}-an-1234-login"
        assert await trial.repository.head(attempt.path) == base
        listed = await trial.inside("git worktree list --porcelain")
        assert f"worktree {attempt.path}\n" in listed
        assert "locked anyon" in listed
        await trial.write(f"{attempt.path}/work", b"w")
        again = await trial.repository.add_worktree(attempt.id, branch=attempt.branch, base="main")
        assert again == attempt.path
        assert await trial.inside(f"cat {attempt.path}/work") == "w"

    async def test_many_at_once(self, trial: Trial) -> None:
        """Callers of one repository wait for each other; every one gets its worktree."""
        await trial.started()
        made = await asyncio.gather(*(trial.attempt(f"t/{n}") for n in range(5)))
        assert len({attempt.path for attempt in made}) == 5

    async def test_an_unknown_base_and_a_taken_branch(self, trial: Trial) -> None:
        """Both are errors with a code, and leave nothing."""
        await trial.started()
        with pytest.raises(NotFoundError) as unknown:
            await trial.attempt(base="nothing/here")
        assert unknown.value.code == "branch_unknown"
        await trial.attempt("t/taken")
        with pytest.raises(ConflictError) as taken:
            await trial.attempt("t/taken")
        assert taken.value.code == "branch_exists"
        with pytest.raises(ConflictError) as below:
            await trial.attempt("main/below")
        assert below.value.code == "branch_exists"
        refs = await trial.inside("git for-each-ref --format='%(refname)' refs/anyon/attempts")
        assert len(refs.splitlines()) == 1

    async def test_a_half_made_worktree_is_made_again(self, trial: Trial) -> None:
        """What a cut-off start has left is replaced by a whole worktree on the same branch."""
        await trial.started()
        attempt = await trial.attempt()
        admin = f".git/worktrees/{attempt.path.name}"
        for damage in (
            f"rm {admin}/anyon-ready {attempt.path}/a.txt; : >{admin}/index.lock",
            f"rm {admin}/anyon-ready {admin}/HEAD {attempt.path}/.git",
            f"rm -r {attempt.path}",
        ):
            await trial.inside(damage)
            await trial.repository.add_worktree(attempt.id, branch="t/one", base="main")
            assert await trial.inside(f"cd {attempt.path}; git status --porcelain; ls") == (
                "a.txt\nrun.sh\nsrc\n"
            )

    async def test_files_are_copied_where_they_exist(self, trial: Trial) -> None:
        """Globs take what the workspace has; tracked files and git's own are never overwritten."""
        await trial.started()
        await trial.inside(
            "printf '.env*\\ncfg/\\n' >>.gitignore; git commit -qam ignore"
            "; echo s >.env; echo l >'.env local'; mkdir -p cfg/deep; echo j >cfg/deep/x.json"
            "; echo changed >a.txt; ln -s .env .env.link"
        )
        attempt = AttemptId(new_id())
        path = await trial.repository.add_worktree(
            attempt,
            branch="c",
            base="main",
            copy_files=(".env*", "cfg/*/x.json", "none/*", "a.txt", ".g*/config"),
        )
        assert await trial.inside(
            f"cd {path}; cat .env '.env local' cfg/deep/x.json a.txt; readlink .env.link; cat .git"
        ) == (f"s\nl\nj\none\ntwo\nthree\n.env\ngitdir: /workspace/.git/worktrees/{path.name}\n")

    async def test_everything_is_committed(self, trial: Trial) -> None:
        """Untracked and deleted files too, whatever their names; None when there is nothing."""
        await trial.started()
        attempt = await trial.attempt()
        assert await trial.repository.commit_all(attempt.path, "nothing") is None
        await trial.inside(
            f"""cd {attempt.path}; rm a.txt; printf x >"$(printf 'q"\\nz')"; mkdir -p d; touch d/e
            git init -q nested"""
        )
        commit = await trial.repository.commit_all(attempt.path, "subject\n\n# not a comment\n")
        assert commit == await trial.repository.head(attempt.path)
        body = await trial.inside(f"git log -1 --format=%B {commit}")
        assert body.strip() == "subject\n\n# not a comment"
        changed = await trial.inside(f"git show --format= --name-status -z {commit}")
        assert changed.split("\0")[:-1] == ["D", "a.txt", "A", "d/e", "A", 'q"\nz']

    async def test_a_lock_of_a_living_git_is_waited_for(self, trial: Trial) -> None:
        """It is not removed while a git lives that may hold it, and what waits goes on after it."""
        await trial.started()
        await trial.inside("echo more >>a.txt")
        holder = asyncio.create_task(
            trial.inside(
                """: >.git/index.lock; mkfifo .git/never; exec 3<>.git/never
                git cat-file --batch <&3 >/dev/null 3<&- & echo $! >.git/holder.part
                mv .git/holder.part .git/holder; wait"""
            )
        )
        await trial.inside("until [ -e .git/holder ]; do sleep 0.05; done")
        waiting = asyncio.create_task(trial.repository.commit_all(WORKSPACE, "more"))
        await asyncio.wait([waiting], timeout=1)
        assert not waiting.done()
        await trial.inside("[ -e .git/index.lock ]; kill $(cat .git/holder); rm .git/index.lock")
        assert await waiting == await trial.repository.head()
        await holder

    async def test_status_counts(self, trial: Trial) -> None:
        """Ahead, behind, uncommitted, untracked, each counted."""
        await trial.started()
        attempt = await trial.attempt()
        await trial.inside(
            f"""echo m >m; git add m; git commit -qm m
            cd {attempt.path}; echo n >n; git add n; git commit -qm n; git commit -q --allow-empty -m 2
            echo change >>a.txt; touch u1; mkdir v; touch v/1 v/2"""
        )
        found = await trial.repository.status(attempt.path, target="main")
        assert (found.ahead, found.behind, found.uncommitted, found.untracked) == (2, 1, 1, 3)
        assert found.head == await trial.repository.head(attempt.path)
        assert not found.is_rebase_in_progress
        assert not found.conflicted_files

    async def test_nothing_is_saved_where_nothing_would_be_lost(self, trial: Trial) -> None:
        """A clean, merged worktree goes with its branch and refs; repeats are harmless."""
        await trial.started()
        attempt = await trial.attempt()
        for _ in range(2):
            assert (
                await trial.repository.remove_worktree(
                    attempt.id, attempt.path, branch="t/one", target="main"
                )
                is None
            )
        assert await trial.inside("ls -A .worktrees; git worktree list | wc -l") == "1\n"
        refs = await trial.inside("git for-each-ref --format='%(refname)'")
        assert refs == "refs/heads/main\n"

    async def test_work_is_saved_before_it_is_removed(self, trial: Trial) -> None:
        """Commits, changes, untracked files and nested repositories are kept, and come back."""
        await trial.started()
        attempt = await trial.attempt()
        await trial.inside(
            f"""cd {attempt.path}; echo c >c; git add c; git commit -qm c; echo d >>a.txt
            echo u >untracked; git init -q lib; cd lib; echo l >l; git add l; git commit -qm l"""
        )
        saved = await trial.repository.remove_worktree(
            attempt.id, attempt.path, branch="t/one", target="main"
        )
        assert saved is not None
        assert saved.ref == f"refs/anyon/saved/{attempt.id}/0001"
        assert saved.attempt == attempt.id
        assert await trial.repository.saved_work() == [saved]
        await trial.repository.restore_saved(saved.ref, "back")
        show = await trial.inside("git show back:c back:untracked back:lib/l; git show back:a.txt")
        assert show == "c\nu\nl\none\ntwo\nthree\nd\n"
        assert "lib/.git-saved/HEAD" in await trial.inside("git ls-tree -r --name-only back")
        with pytest.raises(ConflictError) as exists:
            await trial.repository.restore_saved(saved.ref, "back")
        assert exists.value.code == "branch_exists"
        again = await trial.repository.remove_worktree(
            attempt.id, attempt.path, branch="t/one", target="main"
        )
        assert again == saved

    async def test_clean_unmerged_commits_come_back_as_they_were(self, trial: Trial) -> None:
        """A save of commits alone restores exactly the branch's head."""
        await trial.started()
        attempt = await trial.attempt()
        await trial.write(f"{attempt.path}/new", b"n")
        head = await trial.repository.commit_all(attempt.path, "n")
        saved = await trial.repository.remove_worktree(
            attempt.id, attempt.path, branch="t/one", target="main"
        )
        assert saved is not None
        await trial.repository.restore_saved(saved.ref, "back")
        assert (await trial.inside("git rev-parse back")).strip() == head

    async def test_a_broken_worktree_is_saved_too(self, trial: Trial) -> None:
        """Files are kept even where the worktree's own .git is gone or a merge is half resolved."""
        await trial.started()
        attempt = await trial.attempt()
        await trial.inside(f"cd {attempt.path}; echo precious >p; rm .git")
        saved = await trial.repository.remove_worktree(
            attempt.id, attempt.path, branch="t/one", target="main"
        )
        assert saved is not None
        assert await trial.inside(f"git show {saved.commit}:p") == "precious\n"

    async def test_unreadable_files_are_saved(self, trial: Trial) -> None:
        """A file of mode 000 is the agent's work too."""
        await trial.started()
        attempt = await trial.attempt()
        await trial.inside(f"cd {attempt.path}; echo p >p; chmod 000 p")
        saved = await trial.repository.remove_worktree(
            attempt.id, attempt.path, branch="t/one", target="main"
        )
        assert saved is not None
        assert await trial.inside(f"git show {saved.commit}:p") == "p\n"
