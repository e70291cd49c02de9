"""Merging and rebasing: a part of the repository contract."""

import pytest

from anyon.domain.errors import ConflictError
from anyon.testing.git_trials import Attempt, Trial

_STATE = "git for-each-ref refs/heads; git status --porcelain; cat a.txt"


async def _changed(trial: Trial, content: bytes = b"one\n2\nthree\n") -> Attempt:
    attempt = await trial.attempt()
    await trial.write(f"{attempt.path}/a.txt", content)
    await trial.write(f"{attempt.path}/added/n", b"n\n")
    await trial.repository.commit_all(attempt.path, "work")
    return attempt


async def _merge(trial: Trial, attempt: Attempt, target: str = "main") -> str:
    return await trial.repository.squash_merge(
        attempt.path, branch=attempt.branch, target=target, message="title (anyon)\n\nwhy"
    )


class MergesContract:
    """squash_merge, rebase."""

    async def test_a_merge_is_one_commit_and_the_workspace_follows(self, trial: Trial) -> None:
        """One commit on the target with the message given; files follow; a repeat returns it."""
        base = await trial.started()
        attempt = await _changed(trial)
        commit = await _merge(trial, attempt)
        log = await trial.inside("git log -1 --format='%P %s%n%b' main")
        assert log.strip() == f"{base} title (anyon)\nwhy"
        assert await trial.inside("cat a.txt added/n; git status --porcelain") == (
            "one\n2\nthree\nn\n"
        )
        assert await _merge(trial, attempt) == commit
        await trial.inside("git commit -q --allow-empty -m later")
        assert await _merge(trial, attempt) == commit
        status = await trial.repository.status(attempt.path, target="main")
        assert (status.ahead, status.uncommitted, status.untracked) == (0, 0, 0)

    async def test_work_goes_on_after_a_merge(self, trial: Trial) -> None:
        """A second merge of the same lines does not conflict with the first, moved target or not."""
        await trial.started()
        attempt = await _changed(trial)
        await trial.inside("echo m >m; git add m; git commit -qm m")
        await _merge(trial, attempt)
        assert await trial.inside(f"cat {attempt.path}/m") == "m\n"
        await trial.write(f"{attempt.path}/a.txt", b"one\ntwice\nthree\n")
        await trial.repository.commit_all(attempt.path, "again")
        await _merge(trial, attempt)
        assert await trial.inside("cat a.txt m") == "one\ntwice\nthree\nm\n"

    async def test_a_target_that_is_not_checked_out(self, trial: Trial) -> None:
        """Only the ref moves; the workspace keeps its own branch and files."""
        await trial.started()
        await trial.inside("git branch other")
        attempt = await _changed(trial)
        commit = await _merge(trial, attempt, "other")
        assert (await trial.inside("git rev-parse other")).strip() == commit
        assert await trial.inside("git status --porcelain; cat a.txt") == "one\ntwo\nthree\n"

    async def test_a_target_in_another_worktree_follows(self, trial: Trial) -> None:
        """A subtask's target is its parent's branch: the parent's files follow."""
        await trial.started()
        parent = await trial.attempt("t/parent")
        child = await trial.attempt("t/child", base="t/parent")
        await trial.write(f"{child.path}/a.txt", b"child\n")
        await trial.repository.commit_all(child.path, "c")
        await trial.repository.squash_merge(
            child.path, branch="t/child", target="t/parent", message="m"
        )
        assert await trial.inside(f"cd {parent.path}; cat a.txt; git status --porcelain") == (
            "child\n"
        )

    async def test_a_conflict_changes_nothing(self, trial: Trial) -> None:
        """The files are named; refs, files and worktree are as before."""
        await trial.started()
        attempt = await _changed(trial)
        await trial.inside("printf 'one\\nzwei\\nthree\\n' >a.txt; git commit -qam zwei")
        before = await trial.inside(_STATE)
        with pytest.raises(ConflictError) as raised:
            await _merge(trial, attempt)
        assert raised.value.code == "merge_conflict"
        assert "a.txt" in raised.value.message
        assert "added/n" not in raised.value.message
        assert await trial.inside(_STATE) == before

    async def test_local_changes_are_never_overwritten(self, trial: Trial) -> None:
        """Changed, staged, untracked or ignored files in the way refuse; those beside it stay."""
        await trial.started()
        attempt = await _changed(trial)
        for script, undo in (
            ("echo mine >a.txt", "git checkout -q a.txt"),
            ("echo mine >a.txt; git add a.txt", "git reset -q --hard"),
            ("mkdir added; echo mine >added/n", "rm -r added"),
            (
                "mkdir added; echo mine >added/n; echo added >>.git/info/exclude",
                "rm -r added .git/info/exclude",
            ),
        ):
            await trial.inside(script)
            before = await trial.inside(_STATE)
            with pytest.raises(ConflictError) as raised:
                await _merge(trial, attempt)
            assert raised.value.code == "target_dirty"
            assert ("a.txt" in raised.value.message) or ("added/n" in raised.value.message)
            assert await trial.inside(_STATE) == before
            await trial.inside(undo)
        await trial.inside("echo mine >>src/b.txt; echo loose >loose")
        await _merge(trial, attempt)
        assert await trial.inside("git status --porcelain; cat a.txt; tail -n1 src/b.txt") == (
            " M src/b.txt\n?? loose\none\n2\nthree\nmine\n"
        )

    async def test_files_and_directories_change_places(self, trial: Trial) -> None:
        """A file that becomes a directory, and the reverse, is no trouble; what is ignored stays."""
        await trial.started()
        attempt = await trial.attempt()
        await trial.inside(
            f"""cd {attempt.path}; rm a.txt; mkdir a.txt; echo in >a.txt/in; rm -r src; echo f >src
            mkdir build; echo b >build/b; git add -A; git commit -qm swap"""
        )
        await trial.inside("echo build >>.git/info/exclude; echo precious >build")
        with pytest.raises(ConflictError) as raised:
            await _merge(trial, attempt)
        assert raised.value.code == "target_dirty"
        assert "build" in raised.value.message
        await trial.inside("mv build src/precious; echo precious >>.git/info/exclude")
        with pytest.raises(ConflictError) as raised:
            await _merge(trial, attempt)
        assert "src/precious" in raised.value.message
        await trial.inside("rm src/precious")
        await _merge(trial, attempt)
        assert await trial.inside("cat a.txt/in src build/b; git status --porcelain") == (
            "in\nf\nb\n"
        )

    async def test_a_long_message(self, trial: Trial) -> None:
        """A message of a megabyte, of any characters, is no trouble."""
        await trial.started()
        attempt = await _changed(trial)
        commit = await trial.repository.squash_merge(
            attempt.path, branch="t/one", target="main", message="제목\n\n" + "ü\0" * 400_000
        )
        size = await trial.inside(f"git log -1 --format=%B {commit} | wc -c")
        assert int(size) > 800_000

    async def test_a_rebase_moves_the_branch(self, trial: Trial) -> None:
        """Its commits come after the target's; uncommitted changes refuse."""
        await trial.started()
        attempt = await _changed(trial)
        await trial.inside("echo m >m; git add m; git commit -qm m")
        await trial.write(f"{attempt.path}/src/b.txt", b"dirty")
        with pytest.raises(ConflictError) as raised:
            await trial.repository.rebase(attempt.path, target="main")
        assert raised.value.code == "worktree_dirty"
        await trial.inside(f"cd {attempt.path}; git checkout -q .")
        head = await trial.repository.rebase(attempt.path, target="main")
        assert head == await trial.repository.head(attempt.path)
        status = await trial.repository.status(attempt.path, target="main")
        assert (status.ahead, status.behind) == (1, 0)

    async def test_a_conflicting_rebase_is_undone(self, trial: Trial) -> None:
        """The files are named and the worktree is as before; one in progress is not touched."""
        await trial.started()
        attempt = await _changed(trial)
        await trial.inside("printf 'one\\nzwei\\nthree\\n' >a.txt; git commit -qam zwei")
        head = await trial.repository.head(attempt.path)
        with pytest.raises(ConflictError) as raised:
            await trial.repository.rebase(attempt.path, target="main")
        assert raised.value.code == "merge_conflict"
        assert "a.txt" in raised.value.message
        status = await trial.repository.status(attempt.path, target="main")
        assert (status.head, status.is_rebase_in_progress, status.uncommitted) == (head, False, 0)
        await trial.inside(f"cd {attempt.path}; git rebase -q main >&2 || :")
        status = await trial.repository.status(attempt.path, target="main")
        assert status.is_rebase_in_progress
        assert status.conflicted_files == ["a.txt"]
        with pytest.raises(ConflictError) as busy:
            await trial.repository.rebase(attempt.path, target="main")
        assert busy.value.code == "rebase_in_progress"
        with pytest.raises(ConflictError) as unresolved:
            await trial.repository.commit_all(attempt.path, "m")
        assert unresolved.value.code == "conflicts_unresolved"
        saved = await trial.repository.remove_worktree(
            attempt.id, attempt.path, branch="t/one", target="main"
        )
        assert saved is not None
        assert (await trial.inside(f"git rev-parse {saved.commit}^2")).strip() == head
