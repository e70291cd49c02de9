"""Rebasing an attempt's branch onto its target."""

from pathlib import PurePosixPath

from anyon.git.commands import Commands
from anyon.git.names import check_ref, check_worktree

# The mark ``anyon-rebase`` says that a rebase in progress is ours, cut off: it is undone first.
_REBASE = r"""
cd -- "$1" 2>/dev/null || exit "$WORKTREE_UNKNOWN"
target=$(resolve "$2") || exit "$BRANCH_UNKNOWN"
own=$(git rev-parse --absolute-git-dir)
in_progress() { [ -d "$own/rebase-merge" ] || [ -d "$own/rebase-apply" ]; }
abort() { git rebase --abort >&2 || exit "$REBASE_STUCK"; rm -f "$own/anyon-rebase"; }
if in_progress; then
  [ -e "$own/anyon-rebase" ] || exit "$REBASE_IN_PROGRESS"
  abort
fi
git update-index -q --refresh || exit "$WORKTREE_DIRTY"
git diff-index --quiet HEAD -- || exit "$WORKTREE_DIRTY"
identity
: >"$own/anyon-rebase"
if git -c rebase.autoStash=false -c rebase.autoSquash=false -c rebase.updateRefs=false \
  rebase -q --no-verify --no-gpg-sign "$target" >&2; then
  rm -f "$own/anyon-rebase"
  git rev-parse --verify HEAD
  exit 0
fi
if in_progress; then
  git diff --name-only --no-relative --diff-filter=U -z
  abort
  exit "$MERGE_CONFLICT"
fi
rm -f "$own/anyon-rebase"
exit 1
"""


async def rebase(commands: Commands, worktree: PurePosixPath, *, target: str) -> str:
    """Rebase the worktree's branch onto *target* and return its head; undone on a conflict."""
    check_worktree(worktree)
    async with commands.writing:
        answer = await commands.write(_REBASE, str(worktree), check_ref(target), worktree=worktree)
    return answer.text
