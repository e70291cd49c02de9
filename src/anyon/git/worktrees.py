"""Making an attempt's worktree."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from anyon.domain import layout
from anyon.domain.ids import AttemptId
from anyon.git.commands import Commands
from anyon.git.names import check_attempt, check_branch, check_copy_patterns, check_ref

# refs/anyon/attempts/<id> (the commit an attempt began at) says whose a branch is: a repeat goes
# on with its own, and never takes another's. The mark ``anyon-ready`` is written last: a worktree
# without it was never handed out, so it is half made and is made again.
_ADD = r"""
path=$1 branch=$2 base=$3 attempt=$4
shift 4
admin=.git/worktrees/${path##*/}
if [ -e "$admin/anyon-ready" ] && [ -e "$path/.git" ]; then exit 0; fi
if [ -e "$path" ] || [ -e "$admin" ]; then rm -rf -- "$path" "$admin"; fi
begun=refs/anyon/attempts/$attempt
if ! git rev-parse -q --verify "$begun" >/dev/null; then
  start=$(resolve "$base") || exit "$BRANCH_UNKNOWN"
  if has "refs/heads/$branch"; then exit "$BRANCH_EXISTS"; fi
  printf 'create %s %s\n' "$begun" "$start" "refs/heads/$branch" "$start" |
    git update-ref --stdin || {
    parent=$branch  # a branch `a` leaves no room for `a/b`
    while [ "$parent" != "${parent%/*}" ]; do
      parent=${parent%/*}
      if has "refs/heads/$parent"; then exit "$BRANCH_EXISTS"; fi
    done
    exit 1
  }
elif ! has "refs/heads/$branch"; then
  git update-ref "refs/heads/$branch" "$begun" ''
fi
git worktree add -q --lock --reason anyon -- "$path" "$branch"
IFS=
for pattern; do
  for file in $pattern; do
    case $file in .git | .git/* | .worktrees | .worktrees/*) continue ;; esac
    if [ -e "$file" ] || [ -L "$file" ]; then :; else continue; fi
    if [ -e "$path/$file" ] || [ -L "$path/$file" ]; then continue; fi
    case $file in */*) mkdir -p -- "$path/${file%/*}" ;; esac
    cp -Rp -- "$file" "$path/$file"
  done
done
: >"$admin/anyon-ready"
"""


async def add_worktree(
    commands: Commands,
    attempt: AttemptId,
    *,
    branch: str,
    base: str,
    copy_files: Sequence[str],
) -> PurePosixPath:
    """Make *branch* from *base* and its worktree; a half-made one is made again."""
    check_attempt(attempt)
    path = layout.worktree(attempt, check_branch(branch))
    patterns = check_copy_patterns(copy_files)
    arguments = (str(path), branch, check_ref(base), attempt, *patterns)
    async with commands.writing:
        await commands.write(_ADD, *arguments, worktree=path)
    return path
