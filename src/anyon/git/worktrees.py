"""Making an attempt's worktree."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from anyon.domain import layout
from anyon.domain.errors import ConflictError
from anyon.domain.ids import AttemptId
from anyon.git.branches import current_branch
from anyon.git.commands import Commands
from anyon.git.names import check_attempt, check_branch, check_copy_patterns, check_ref
from anyon.git.repository import Begun
from anyon.git.spares import SPARE

# refs/anyon/attempts/<id> (the commit an attempt began at) says whose a branch is: a repeat goes
# on with its own, and never takes another's. The mark ``anyon-ready`` is written last: a worktree
# without it was never handed out, so it is half made and is made again.
_ADD = (
    SPARE
    + r"""
path=$1 branch=$2 base=$3 is_current=$4 attempt=$5
shift 5
admin=.git/worktrees/${path##*/} begun=refs/anyon/attempts/$attempt
if [ -e "$admin/anyon-ready" ] && [ -e "$path/.git" ]; then
  exec git --git-dir="$admin" rev-parse -q --verify HEAD
fi
if [ "$is_current" = 1 ]; then
  at=
  read -r at <.git/HEAD || :
  [ "$at" = "ref: refs/heads/$base" ] || [ "$at" = "$base" ] || exit "$HEAD_MOVED"
fi
if [ -e "$path" ] || [ -e "$admin" ]; then rm -rf -- "$path" "$admin"; fi
begin_at() {  # makes both refs at $1, if that is a commit's id and still the base's
  case $1 in '' | *[!0-9a-f]*) return 1 ;; esac
  printf 'verify %s %s\ncreate %s %s\ncreate %s %s\n' \
    "refs/heads/$base" "$1" "$begun" "$1" "refs/heads/$branch" "$1" |
    git update-ref --stdin 2>/dev/null || return 1
  tip=$1
}
loose() { at=; { read -r at <".git/refs/heads/$base"; } 2>/dev/null; }  # sets $at, with no program
tip= is_new=
if find_spare && begin_at "$oid"; then
  :
elif loose && begin_at "$at"; then
  is_new=1
elif ! git rev-parse -q --verify "$begun" >/dev/null; then
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
[ -n "$tip" ] || tip=$(git rev-parse -q --verify "refs/heads/$branch^{commit}")
if ! bring_spare "$tip" || ! take_spare; then
  if [ -e "$path" ] || [ -e "$admin" ]; then rm -rf -- "$path" "$admin"; fi
  # A branch of this moment is checked out nowhere else: nothing is left for git to refuse.
  if [ -z "$is_new" ] || ! write_worktree "ref: refs/heads/$branch"; then
    if [ -e "$path" ] || [ -e "$admin" ]; then rm -rf -- "$path" "$admin"; fi
    git worktree add -q --lock --reason anyon -- "$path" "$branch"
  fi
fi
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
printf '%s\n' "$tip"
"""
)


async def begin_worktree(
    commands: Commands,
    attempt: AttemptId,
    *,
    branch: str,
    base: str,
    is_current: bool,
    copy_files: Sequence[str],
) -> Begun:
    """Make *branch* from *base* and its worktree; a half-made one is made again."""
    check_attempt(attempt)
    path = layout.worktree(attempt, check_branch(branch))
    patterns = check_copy_patterns(copy_files)

    async def begun(base: str, flag: str) -> Begun:
        arguments = (str(path), branch, check_ref(base), flag, attempt, *patterns)
        async with commands.writing:
            answer = await commands.write(_ADD, *arguments, worktree=path)
        return Begun(path=path, head=answer.text, base=base)

    try:
        return await begun(base, "1" if is_current else "0")
    except ConflictError as error:
        if not is_current or error.code != "head_moved":
            raise
    return await begun(await current_branch(commands), "0")


async def add_worktree(
    commands: Commands,
    attempt: AttemptId,
    *,
    branch: str,
    base: str,
    copy_files: Sequence[str],
) -> PurePosixPath:
    """Make *branch* from *base* and its worktree, and return its path."""
    begun = await begin_worktree(
        commands, attempt, branch=branch, base=base, is_current=False, copy_files=copy_files
    )
    return begun.path
