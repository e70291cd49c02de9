"""How repositories begin, and how their branches are seen: a part of the repository contract."""

import pytest

from anyon.domain.errors import AnyonError, ConflictError, InvalidInputError, NotFoundError
from anyon.domain.ids import AttemptId, new_id
from anyon.domain.layout import WORKTREES
from anyon.testing.git_trials import Trial


class BeginningsContract:
    """init, clone, import, branches."""

    async def test_a_new_repository_has_main_and_keeps_worktrees_out(self, trial: Trial) -> None:
        """Init makes main with a first commit; .worktrees/ is ignored; repeats change nothing."""
        await trial.write("kept.txt", b"mine\n")
        await trial.repository.init()
        first = await trial.repository.head()
        await trial.repository.init()
        assert await trial.repository.head() == first
        assert await trial.repository.current_branch() == "main"
        assert await trial.inside("cat .gitignore") == ".worktrees/\n"
        assert await trial.inside("git ls-files") == ".gitignore\nkept.txt\n"
        await trial.attempt()
        assert await trial.inside("git status --porcelain") == ""
        assert "Anyon <anyon@localhost>" in await trial.inside("git log -1 --format='%an <%ae>'")

    async def test_a_known_author_is_kept(self, trial: Trial) -> None:
        """Where the repository says who its author is, commits are that author's."""
        await trial.started()
        await trial.inside("git config user.name Kim; git config user.email kim@example.org")
        attempt = await trial.attempt()
        await trial.write(f"{attempt.path}/new", b"x")
        assert await trial.repository.commit_all(attempt.path, "m")
        author = await trial.inside('git log -1 --format="%an %ae" t/one')
        assert author == "Kim kim@example.org\n"

    async def test_an_imported_repository_is_not_dirtied(self, trial: Trial) -> None:
        """Import touches .git/info/exclude only, once; no repository is an error with a code."""
        with pytest.raises(InvalidInputError) as raised:
            await trial.repository.prepare_imported()
        assert raised.value.code == "not_a_repository"
        await trial.inside("git init -q -b trunk; echo x >staged; git add staged; echo y >loose")
        await trial.repository.prepare_imported()
        await trial.repository.prepare_imported()
        assert await trial.inside("git status --porcelain") == "A  staged\n?? loose\n"
        assert await trial.inside("grep -c worktrees .git/info/exclude") == "1\n"
        assert await trial.repository.current_branch() == "trunk"
        assert len(await trial.repository.head()) == 40

    async def test_a_git_directory_that_leads_elsewhere_is_no_repository(
        self, trial: Trial
    ) -> None:
        """A .git that is a link or a gitfile is refused, not followed."""
        await trial.inside("git init -q /tmp/other; printf 'gitdir: /tmp/other/.git' >.git")
        for _ in range(2):
            with pytest.raises(InvalidInputError) as raised:
                await trial.repository.prepare_imported()
            assert raised.value.code == "not_a_repository"
            await trial.inside("rm .git; ln -s /tmp/other/.git .git")

    async def test_a_clone_is_whole_or_leaves_nothing(self, trial: Trial) -> None:
        """A failed clone leaves the workspace empty; a good one checks everything out."""
        await trial.inside(
            """mkdir -p "$HOME/far"; cd "$HOME/far"; git init -q -b trunk; echo hi >"file one"
            git add .; git commit -qm far
            printf '#!/bin/sh\\nfor last; do :; done\\nexec sh -c "$last"\\n' >"$HOME/ssh"
            chmod +x "$HOME/ssh"; git config --global core.sshCommand "$HOME/ssh"
            git config --global ssh.variant simple"""
        )
        home = (await trial.inside('printf %s "$HOME"')).strip()
        with pytest.raises(AnyonError) as raised:
            await trial.repository.clone(f"ssh://u@localhost{home}/nowhere")
        assert raised.value.code == "clone_failed"
        assert await trial.inside("ls -A") == ""
        await trial.inside(
            """git config --global filter.f.required true; git config --global filter.f.smudge false
            mkdir -p "$HOME/.config/git"; echo 'file* filter=f' >"$HOME/.config/git/attributes" """
        )
        with pytest.raises(AnyonError) as raised:
            await trial.repository.clone(f"ssh://u@localhost{home}/far")
        assert raised.value.code == "clone_failed"
        assert await trial.inside("ls -A") == ""
        await trial.inside('rm "$HOME/.config/git/attributes"')
        await trial.repository.clone(f"ssh://u@localhost{home}/far")
        assert await trial.inside("cat 'file one'; git status --porcelain") == "hi\n"
        assert await trial.repository.current_branch() == "trunk"
        names = [branch.name for branch in await trial.repository.branches()]
        assert names == ["trunk", "origin/trunk"]
        with pytest.raises(ConflictError) as conflict:
            await trial.repository.clone(f"ssh://u@localhost{home}/far")
        assert conflict.value.code == "workspace_not_empty"

    async def test_a_configured_transport_is_still_refused(self, trial: Trial) -> None:
        """Even where configuration rewrites an address to ext::, no command is run."""
        await trial.inside(
            """git config --global url."ext::sh -c 'touch /workspace/owned' ".insteadOf \
            https://x.invalid/
            git config --global protocol.ext.allow always"""
        )
        with pytest.raises(AnyonError) as raised:
            await trial.repository.clone("https://x.invalid/repo")
        assert raised.value.code == "clone_failed"
        assert "ext" in raised.value.message
        with pytest.raises(AnyonError) as refused:
            await trial.repository.clone("https://kim:hunter2@127.0.0.1:1/repo")
        assert "127.0.0.1:1" in refused.value.message
        assert "hunter2" not in refused.value.message + refused.value.hint
        assert await trial.inside("ls -A") == ""

    async def test_branches_come_current_first_then_newest(self, trial: Trial) -> None:
        """Remote branches are marked, symbolic ones left out, Korean names kept."""
        await trial.started()
        await trial.inside(
            """at() { GIT_COMMITTER_DATE="$1 +0000" git commit-tree -m x 'HEAD^{tree}'; }
            git update-ref refs/heads/로그인 "$(at 2001-01-01T00:00:00)"
            git update-ref refs/remotes/origin/new "$(at 2002-01-01T00:00:00)"
            git symbolic-ref refs/remotes/origin/HEAD refs/remotes/origin/new"""
        )
        found = await trial.repository.branches()
        assert [b.name for b in found] == ["main", "origin/new", "로그인"]
        assert [b.is_current for b in found] == [True, False, False]
        assert [b.is_remote for b in found] == [False, True, False]
        assert found[1].last_commit_at.isoformat() == "2002-01-01T00:00:00+00:00"
        await trial.attempt(base="로그인")

    async def test_hostile_names_never_reach_git(self, trial: Trial) -> None:
        """Options, shell words and refspecs are refused before anything is run."""
        await trial.started()
        attempt = AttemptId(new_id())
        path = WORKTREES / f"{attempt}-x"
        for bad in ("--output=/tmp/x", "a;id", "$(id)", "a b", "a..b", "x@{1}", "", "-x", "a\nb"):
            for call in (
                trial.repository.add_worktree(attempt, branch=bad, base="main"),
                trial.repository.add_worktree(attempt, branch="ok", base=bad),
                trial.repository.diff(path, base=bad),
                trial.repository.status(path, target=bad),
                trial.repository.rebase(path, target=bad),
                trial.repository.squash_merge(path, branch=bad, target="main", message="m"),
                trial.repository.remove_worktree(attempt, path, branch="ok", target=bad),
            ):
                with pytest.raises(InvalidInputError) as raised:
                    await call
                assert raised.value.code == "bad_ref_name"

    async def test_git_is_looked_at(self, trial: Trial) -> None:
        """The version inside is told; an unknown worktree is NotFoundError."""
        assert await trial.repository.check_git() >= (2, 39)
        await trial.started()
        with pytest.raises(NotFoundError) as raised:
            await trial.repository.head(WORKTREES / "nowhere")
        assert raised.value.code == "worktree_unknown"
