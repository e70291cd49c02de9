"""Spare worktrees: a part of the repository contract."""

from anyon.domain.ids import AttemptId, new_id
from anyon.domain.layout import WORKTREES
from anyon.git.repository import Begun
from anyon.testing.git_trials import Trial

SPARE = ".worktrees/anyon-spare"
_INODE = "stat -c %i"


async def begin(
    trial: Trial, branch: str, base: str = "main", *, is_current: bool = False
) -> Begun:
    """Begin an attempt's worktree."""
    return await trial.repository.begin_worktree(
        AttemptId(new_id()), branch=branch, base=base, is_current=is_current
    )


async def check_whole(trial: Trial, begun: Begun, branch: str) -> None:
    """Fail unless the worktree is one as git itself makes it, clean, at its branch."""
    admin = f".git/worktrees/{begun.path.name}"
    await trial.inside(
        f"""cd {begun.path}; [ -z "$(git status --porcelain --ignored)" ]
        [ "$(git symbolic-ref HEAD)" = refs/heads/{branch} ]
        [ "$(git rev-parse HEAD)" = {begun.head} ]; cd /workspace
        [ "$(cat {begun.path}/.git)" = "gitdir: /workspace/{admin}" ]
        [ "$(cat {admin}/gitdir)" = {begun.path}/.git ]
        git worktree list --porcelain | grep -A3 -x 'worktree {begun.path}' | grep -qx 'locked anyon'
        [ -e {admin}/anyon-ready ]; git fsck --no-dangling >&2"""
    )


class SparesContract:
    """prepare_spare, and begin_worktree with one and without."""

    async def test_a_spare_is_taken_as_it_is(self, trial: Trial) -> None:
        """Its very files become the attempt's, on the attempt's branch; nothing of it shows before or after."""
        head = await trial.started()
        for _ in range(2):
            await trial.repository.prepare_spare("main")
        assert [branch.name for branch in await trial.repository.branches()] == ["main"]
        assert await trial.inside("git status --porcelain; ls -A .worktrees") == "anyon-spare\n"
        inode = await trial.inside(f"{_INODE} {SPARE}/src/b.txt")
        begun = await begin(trial, "t/one")
        assert (begun.head, begun.base, begun.path.parent) == (head, "main", WORKTREES)
        assert await trial.inside(f"{_INODE} {begun.path}/src/b.txt") == inode
        await check_whole(trial, begun, "t/one")
        assert await trial.inside("ls -A .worktrees .git/worktrees | grep spare || echo no") == (
            "no\n"
        )
        other = await begin(trial, "t/two")
        await check_whole(trial, other, "t/two")

    async def test_its_attempt_works_like_any(self, trial: Trial) -> None:
        """Work in it is committed, merged and removed."""
        await trial.started()
        await trial.repository.prepare_spare("main")
        attempt = await trial.attempt("t/one")
        await trial.write(f"{attempt.path}/new", b"n")
        assert await trial.repository.commit_all(attempt.path, "new")
        await trial.repository.squash_merge(
            attempt.path, branch="t/one", target="main", message="m"
        )
        await trial.repository.remove_worktree(
            attempt.id, attempt.path, branch="t/one", target="main"
        )
        listed = await trial.inside("cat new; ls -A .worktrees; git worktree list | wc -l")
        assert listed == "n1\n"

    async def test_a_spare_that_was_touched_is_nobodys_beginning(self, trial: Trial) -> None:
        """Changed, added to, ignored files too, broken, switched: the attempt begins clean, and so does the next spare."""
        await trial.started()
        await trial.inside("echo '*.o' >>.gitignore; git commit -qam ignore")
        for number, damage in enumerate(
            (
                f"echo x >>{SPARE}/a.txt",
                f"echo x >{SPARE}/untracked",
                f"echo x >{SPARE}/built.o",
                f"rm {SPARE}/a.txt",
                f"rm {SPARE}/.git",
                f"rm -r {SPARE}",
                f"rm -r {SPARE}; ln -s /tmp {SPARE}",
                f"git -C {SPARE} checkout -qb theirs",
                f"git -C {SPARE} commit -q --allow-empty -m theirs",
            )
        ):
            await trial.repository.prepare_spare("main")
            await trial.inside(damage)
            await check_whole(trial, await begin(trial, f"t/{number}"), f"t/{number}")
            await trial.repository.prepare_spare("main")
            await trial.inside(
                f"""[ -f {SPARE}/.git ] && [ -e .git/worktrees/anyon-spare/anyon-spare ]
                [ -z "$(git -C {SPARE} status --porcelain --ignored)" ]
                [ "$(git -C {SPARE} rev-parse HEAD)" = "$(git rev-parse main)" ]
                git branch -qD theirs 2>/dev/null || :"""
            )

    async def test_a_spare_follows_its_base(self, trial: Trial) -> None:
        """One from before the base's last commits is brought there; not where attributes changed."""
        await trial.started()
        await trial.repository.prepare_spare("main")
        inode = await trial.inside(f"{_INODE} {SPARE}")
        await trial.inside("echo more >>a.txt; git rm -q src/b.txt; git commit -qam more")
        begun = await begin(trial, "t/one")
        assert begun.head == await trial.repository.head()
        assert await trial.inside(f"{_INODE} {begun.path}") == inode
        await check_whole(trial, begun, "t/one")
        await trial.repository.prepare_spare("main")
        inode = await trial.inside(f"{_INODE} {SPARE}")
        await trial.inside(
            "echo '*.txt eol=crlf' >.gitattributes; git add -A; git commit -qm attributes"
        )
        begun = await begin(trial, "t/two")
        assert await trial.inside(f"{_INODE} {begun.path}") != inode
        await check_whole(trial, begun, "t/two")
        assert b"one\r\n" in await trial.raw(f"cat {begun.path}/a.txt")

    async def test_a_base_that_is_no_longer_current(self, trial: Trial) -> None:
        """A caller who believes in another current branch is told which it is, and begins there."""
        await trial.started()
        assert (await begin(trial, "t/one", is_current=True)).base == "main"
        await trial.inside("git checkout -qb other; git commit -q --allow-empty -m other")
        moved = await begin(trial, "t/two", is_current=True)
        assert (moved.base, moved.head) == ("other", await trial.repository.head())
        wanted = await begin(trial, "t/three", base="main")
        assert wanted.base == "main"
        await trial.inside("git checkout -q --detach")
        loose = await begin(trial, "t/four", base="other", is_current=True)
        assert loose.base == loose.head == moved.head
