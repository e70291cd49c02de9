"""Putting a branch's change onto its target as one commit, never half.

The merge is computed among objects only (``merge-tree``). Where the target is checked out, its
files are brought along first, under a journal (``.git/anyon-merge``), and its ref last, only if
it is still what was merged: that is the moment of the merge (see ``journals`` for what happens when
the steps are cut off). Then the branch itself goes on from the merge, so that what follows on it
does not conflict with itself; whatever stands in the way of that leaves the branch as it was.
"""

from pathlib import PurePosixPath

from anyon.domain.errors import ConflictError
from anyon.git.commands import Commands
from anyon.git.commits import message_bytes
from anyon.git.names import check_branch, check_ref, check_worktree

_TRIES = 3

_MERGE = r"""
worktree=$1 branch=$2 target=$3
record=refs/anyon/merges/${worktree##*/}
old=$(git rev-parse -q --verify "refs/heads/$target^{commit}") || exit "$BRANCH_UNKNOWN"
tip=$(git rev-parse -q --verify "refs/heads/$branch^{commit}") || exit "$BRANCH_UNKNOWN"
compute() {
  git -c core.quotePath=false merge-tree --write-tree --no-messages --name-only "$old" "$tip"
}
tree=$(compute) || {
  [ $? -eq 1 ] || exit "$UNRELATED"
  compute | sed 1d | tr '\n' '\0'
  exit "$MERGE_CONFLICT"
}
if [ "$tree" = "$(git rev-parse "$old^{tree}")" ]; then
  merged=$(git rev-parse -q --verify "$record^{commit}") || merged=$old
  git merge-base --is-ancestor "$merged" "$old" || merged=$old
  echo "$merged"
  exit 0
fi
identity
new=$(git commit-tree "$tree" -p "$old" -F -)
in_target() { git -C "$at" -c safe.directory="$at" "$@"; }
# Of the files that the merge adds, those where something untracked stands. Git itself would
# overwrite what is ignored.
in_the_way='
  for file; do
    place=$file
    while [ ! -e "$place" ] && [ ! -L "$place" ]; do
      case $place in */*) place=${place%/*} ;; *) continue 2 ;; esac
    done
    if [ "$place" != "$file" ] && [ -d "$place" ] && [ ! -L "$place" ]; then continue; fi
    git -c safe.directory="$0" -c core.quotePath=false ls-files -o -- "$place"
  done'
at=$(git for-each-ref --format='%(worktreepath)' "refs/heads/$target")
[ -n "$at" ] && [ -d "$at" ] || at=
if [ -n "$at" ]; then
  in_the_way=$(git diff-tree -r --no-renames --diff-filter=A --name-only -z "$old" "$new" | (
    cd -- "$at"
    GIT_LITERAL_PATHSPECS=1 xargs -0 sh -c "$in_the_way" "$at"))
  if [ -n "$in_the_way" ]; then
    printf '%s' "$in_the_way" | tr '\n' '\0'
    exit "$TARGET_DIRTY"
  fi
  in_target update-index -q --refresh >/dev/null || :
  printf '%s\n%s\n%s\n%s\n' "$target" "$old" "$new" "$at" >.git/anyon-merge.part
  mv .git/anyon-merge.part .git/anyon-merge
  if ! said=$(in_target read-tree -m -u "$old" "$new" 2>&1); then
    rm .git/anyon-merge
    printf '%s\n' "$said" >&2
    exit "$TARGET_DIRTY"
  fi
fi
git update-ref "$record" "$new"
if ! git update-ref -m "anyon: merge $branch" "refs/heads/$target" "$new" "$old"; then
  if [ -n "$at" ]; then in_target read-tree -m -u "$new" "$old"; rm .git/anyon-merge; fi
  exit "$TARGET_MOVED"
fi
if [ -n "$at" ]; then rm .git/anyon-merge; fi
echo "$new"
cd -- "$worktree" 2>/dev/null || exit 0
[ "$(git symbolic-ref -q HEAD)" = "refs/heads/$branch" ] || exit 0
git update-index -q --refresh >/dev/null || :
git read-tree -m -u "$tip" "$new" 2>/dev/null || exit 0
git update-ref -m 'anyon: merged' "refs/heads/$branch" "$new" "$tip" ||
  git read-tree -m -u "$new" "$tip"
"""


async def squash_merge(
    commands: Commands, worktree: PurePosixPath, *, branch: str, target: str, message: str
) -> str:
    """Put *branch*'s whole change as one commit on *target* and return it."""
    check_worktree(worktree)
    arguments = (str(worktree), check_branch(branch), check_ref(target))
    async with commands.writing:
        for attempt in range(1, _TRIES + 1):
            try:
                answer = await commands.write(
                    _MERGE, *arguments, worktree=worktree, stdin=message_bytes(message)
                )
            except ConflictError as error:
                if error.code != "target_moved" or attempt == _TRIES:
                    raise
            else:
                return answer.text
    raise AssertionError("the last try returns or raises")
