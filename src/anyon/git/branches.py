"""Looking at branches: which there are, what is checked out, how one stands against another."""

from datetime import UTC, datetime
from pathlib import PurePosixPath

from anyon.git.commands import Commands
from anyon.git.names import check_ref, check_worktree
from anyon.git.repository import Branch, BranchStatus

_BRANCHES = r"""
repository
git for-each-ref --sort=-committerdate \
  --format='%(refname)%00%(HEAD)%00%(symref)%00%(committerdate:unix)%00' refs/heads refs/remotes
"""
_CURRENT = r"""
repository
git symbolic-ref -q --short HEAD || git rev-parse --verify HEAD
"""
_HEAD = r"""
cd -- "$1" 2>/dev/null || exit "$WORKTREE_UNKNOWN"
git rev-parse -q --verify 'HEAD^{commit}' || exit "$COMMIT_UNKNOWN"
"""
_STATUS = r"""
cd -- "$1" 2>/dev/null || exit "$WORKTREE_UNKNOWN"
target=$(resolve "$2") || exit "$BRANCH_UNKNOWN"
{ read -r own; read -r head; } <<EOT
$(git rev-parse --absolute-git-dir HEAD)
EOT
rebasing=0
if [ -d "$own/rebase-merge" ] || [ -d "$own/rebase-apply" ]; then rebasing=1; fi
printf '%s %s ' "$head" "$rebasing"
git rev-list --count --left-right "$target...$head"
git status --porcelain=v2 -z --untracked-files=all --no-renames
"""


async def branches(commands: Commands) -> list[Branch]:
    """Return all branches, the current one first, then the newest."""
    fields = (await commands.read(_BRANCHES)).stdout.split(b"\0")
    found = []
    for name, mark, symref, at in zip(*(iter(fields[:-1]),) * 4, strict=True):
        path = name.decode("utf-8", "backslashreplace").strip()
        is_remote = path.startswith("refs/remotes/")
        if symref or not at:  # origin/HEAD; a ref to something that is no commit
            continue
        found.append(
            Branch(
                name=path.removeprefix("refs/remotes/" if is_remote else "refs/heads/"),
                is_current=mark == b"*",
                is_remote=is_remote,
                last_commit_at=datetime.fromtimestamp(int(at), UTC),
            )
        )
    return sorted(found, key=lambda branch: not branch.is_current)


async def current_branch(commands: Commands) -> str:
    """Return the workspace's branch, or its commit when detached."""
    return (await commands.read(_CURRENT)).text


async def head(commands: Commands, worktree: PurePosixPath) -> str:
    """Return the commit at HEAD of *worktree*."""
    check_worktree(worktree)
    return (await commands.read(_HEAD, str(worktree), worktree=worktree)).text


async def status(commands: Commands, worktree: PurePosixPath, *, target: str) -> BranchStatus:
    """Return how the worktree stands against *target*."""
    check_worktree(worktree)
    arguments = (str(worktree), check_ref(target))
    return parse_status((await commands.read(_STATUS, *arguments, worktree=worktree)).stdout)


def parse_status(output: bytes) -> BranchStatus:
    """Return what the status script says: a line of counts, then porcelain v2 entries."""
    line, _, entries = output.partition(b"\n")
    commit, rebasing, behind, ahead = line.decode().split()
    listed = [entry for entry in entries.split(b"\0") if entry]
    unmerged = [entry.split(b" ", 10)[10] for entry in listed if entry.startswith(b"u ")]
    untracked = sum(entry.startswith(b"? ") for entry in listed)
    return BranchStatus(
        ahead=int(ahead),
        behind=int(behind),
        head=commit,
        uncommitted=len(listed) - untracked,
        untracked=untracked,
        is_rebase_in_progress=rebasing == "1",
        conflicted_files=[path.decode("utf-8", "backslashreplace") for path in unmerged],
    )
