"""Removing worktrees, and keeping the work that would be lost with them."""

from datetime import UTC, datetime
from pathlib import PurePosixPath

from anyon.domain.errors import InvalidInputError
from anyon.domain.ids import AttemptId
from anyon.git.commands import Commands
from anyon.git.names import (
    check_attempt,
    check_branch,
    check_ref,
    check_saved_ref,
    check_worktree,
)
from anyon.git.repository import SavedWork

# The files are read by path and the repository's directory is named outright, so a worktree whose
# own .git is broken is saved all the same. A repository nested in it would be saved as a mere
# commit id: its .git is renamed first, and so becomes files like others.
_SAVE = r"""
path=$1 branch=$2 target=$3 attempt=$4
admin=.git/worktrees/${path##*/} gone=${path%/*}/.removing-${path##*/}
saves=refs/anyon/saved/$attempt
of() { git rev-parse -q --verify --end-of-options "$1"; }
into=$(resolve "$target") || into=
is_merged() {
  [ -n "$into" ] || return 1
  git merge-base --is-ancestor "$1" "$into" && return
  [ "$(git merge-tree --write-tree "$into" "$1" 2>/dev/null)" = "$(of "$into^{tree}")" ]
}
stage() {
  GIT_DIR=/workspace/.git GIT_WORK_TREE=$path GIT_INDEX_FILE=/workspace/$admin.saving \
    git -C "$path" "$@"
}
tip=$(of "refs/heads/$branch^{commit}") || tip=
head=$tip tree=
if [ -d "$path" ] && [ ! -L "$path" ]; then
  if [ -e "$admin/HEAD" ]; then head=$(git --git-dir="$admin" rev-parse -q --verify HEAD) || head=$tip; fi
  [ -n "$head" ] || head=$into
  [ -n "$head" ] || exit "$BRANCH_UNKNOWN"
  mkdir -p .git/worktrees
  rm -f "$admin.saving" "$admin.saving.lock"
  if [ -e "$admin/index" ]; then cp "$admin/index" "$admin.saving"; else stage read-tree "$head"; fi
  find "$path" -mindepth 2 -name .git -prune -exec sh -c '
    root=$1
    shift
    for nested; do
      inside=${nested%/.git}
      case $(git --git-dir=/workspace/.git ls-tree "$0" -- "${inside#"$root"/}") in
        160000*) ;; *) mv -- "$nested" "$inside/.git-saved" ;; esac
    done' "$head" "$path" {} + 2>/dev/null || :
  if ! stage add -A --ignore-errors . ; then
    chmod -R u+rwX -- "$path"
    stage add -A . >&2 || {
      find "$path" -mindepth 2 -name .git-saved -prune -exec sh -c '
        for nested; do mv -- "$nested" "${nested%-saved}"; done' sh {} +
      exit "$SAVE_INCOMPLETE"
    }
  fi
  tree=$(stage write-tree)
  rm -f "$admin.saving"
fi
[ -n "$tree" ] || { [ -z "$head" ] || tree=$(of "$head^{tree}"); }
last=$(git for-each-ref --sort=-refname --count=1 --format='%(refname)' "$saves")
show() { git for-each-ref --format='%(refname) %(objectname) %(committerdate:unix)' "$1"; }
is_saved() {
  [ -n "$last" ] && [ "$(of "$last^1")" = "$head" ] || return 1
  [ -z "$tip" ] || git merge-base --is-ancestor "$tip" "$last" || return 1
  [ ! -d "$path" ] || [ "$(of "$last^{tree}")" = "$tree" ]
}
if [ -z "$head" ]; then  # a repeat: all is gone, and what was saved is told again
  [ -z "$last" ] || show "$last"
elif is_saved; then
  show "$last"
elif [ "$tree" != "$(of "$head^{tree}")" ] || ! is_merged "$head" ||
  { [ -n "$tip" ] && ! git merge-base --is-ancestor "$tip" "$head" && ! is_merged "$tip"; }; then
  identity
  set -- -p "$head"
  if [ -n "$tip" ] && [ "$tip" != "$head" ]; then set -- "$@" -p "$tip"; fi
  commit=$(git commit-tree "$tree" "$@" -m "Work of $branch, saved before its worktree was removed")
  number=${last##*/} number=${number#"${number%%[!0]*}"}
  next=$saves/$(printf '%04d' "$((${number:-0} + 1))")
  git update-ref -m 'anyon: saved' "$next" "$commit" ''
  show "$next"
fi
"""
# The directory is renamed first: a repeat must not take a half-deleted one for the agent's work.
_REMOVE = (
    _SAVE
    + r"""
rm -rf -- "$gone"
if [ -e "$path" ] || [ -L "$path" ]; then mv -- "$path" "$gone"; fi
rm -rf -- "$gone" "$admin"
at=$(git for-each-ref --format='%(worktreepath)' "refs/heads/$branch")
if [ -n "$at" ]; then branch=; fi
git for-each-ref --format='delete %(refname) %(objectname)' ${branch:+"refs/heads/$branch"} \
  "refs/anyon/attempts/$attempt" "refs/anyon/merges/${path##*/}" | git update-ref --stdin
find .git/anyon-tmp -mindepth 1 -maxdepth 1 -mmin +60 -exec rm -rf -- {} + 2>/dev/null || :
"""
)
_SAVED = r"""
repository
git for-each-ref --sort=-committerdate --sort=-refname \
  --format='%(refname) %(objectname) %(committerdate:unix)' refs/anyon/saved
"""
# A save of clean but unmerged work adds a commit with nothing in it: that one is left out.
_RESTORE = r"""
saved=$(git rev-parse -q --verify "$1^{commit}") || exit "$COMMIT_UNKNOWN"
if has "refs/heads/$2"; then exit "$BRANCH_EXISTS"; fi
if ! has "$saved^2" && [ "$(git rev-parse "$saved^{tree}")" = "$(git rev-parse "$saved^1^{tree}")" ]
then saved=$(git rev-parse "$saved^1"); fi
git update-ref -m 'anyon: restored' "refs/heads/$2" "$saved" ''
"""


async def remove_worktree(
    commands: Commands, attempt: AttemptId, worktree: PurePosixPath, *, branch: str, target: str
) -> SavedWork | None:
    """Remove a worktree and its branch; return where unmerged or uncommitted work was kept."""
    check_worktree(worktree, check_attempt(attempt))
    check_ref(target)
    if check_branch(branch) == target:
        raise InvalidInputError(
            f"branch {branch} is the target and cannot be removed", code="bad_ref_name"
        )
    arguments = (str(worktree), branch, target, attempt)
    async with commands.writing:
        answer = await commands.write(_REMOVE, *arguments, worktree=worktree)
    found = parse_saved(answer.text)
    return found[0] if found else None


async def saved_work(commands: Commands) -> list[SavedWork]:
    """Return what removals have saved, newest first."""
    return parse_saved((await commands.read(_SAVED)).text)


async def restore_saved(commands: Commands, ref: str, branch: str) -> None:
    """Make *branch* at saved work."""
    arguments = (check_saved_ref(ref), check_branch(branch))
    async with commands.writing:
        await commands.write(_RESTORE, *arguments)


def parse_saved(text: str) -> list[SavedWork]:
    """Return the saved work that lines of ref, commit and time list."""
    rows = (line.split(" ") for line in text.splitlines())
    return [
        SavedWork(
            ref=ref,
            commit=commit,
            attempt=AttemptId(ref.split("/")[3]),
            saved_at=datetime.fromtimestamp(int(at), UTC),
        )
        for ref, commit, at in rows
    ]
