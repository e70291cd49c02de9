"""Committing what an agent has done."""

from pathlib import PurePosixPath

from anyon.git.commands import Commands
from anyon.git.names import check_worktree

_DEFAULT_MESSAGE = "Work of an attempt"

# --ignore-errors: one unreadable file or empty nested repository must not keep the rest out;
# what is left out stays in the worktree and shows in its status.
_COMMIT_ALL = r"""
cd -- "$1" 2>/dev/null || exit "$WORKTREE_UNKNOWN"
own=  # a worktree's .git is a file that says it, and to read that costs no program
{ read -r own <.git; } 2>/dev/null || own=
own=${own#gitdir: }
case $own in /*) ;; *) own=$(git rev-parse --absolute-git-dir) ;; esac
if [ -d "$own/rebase-merge" ] || [ -d "$own/rebase-apply" ] || [ -n "$(git ls-files -u)" ]; then
  exit "$CONFLICTS_UNRESOLVED"
fi
git add -A --ignore-errors || [ $? -eq 1 ]
if [ ! -e "$own/MERGE_HEAD" ] && git diff-index --cached --quiet HEAD --; then exit 0; fi
identity
git commit -q --no-verify --allow-empty --cleanup=whitespace -F -
head=
{ read -r head <"$own/HEAD"; } 2>/dev/null || head=
case $head in  # what was just committed on a branch stands in that branch's own file
'ref: refs/heads/'*) { read -r head <"/workspace/.git/${head#ref: }"; } 2>/dev/null || head= ;;
esac
case $head in
'' | *[!0-9a-f]*) git rev-parse --verify HEAD ;;
*) printf '%s\n' "$head" ;;
esac
"""


async def commit_all(commands: Commands, worktree: PurePosixPath, message: str) -> str | None:
    """Commit everything in *worktree*; return the commit, None if there was nothing."""
    check_worktree(worktree)
    async with commands.writing:
        answer = await commands.write(
            _COMMIT_ALL, str(worktree), worktree=worktree, stdin=message_bytes(message)
        )
    return answer.text or None


def message_bytes(message: str) -> bytes:
    """Return a commit message as git takes it: never empty, without NULs, one newline at the end."""
    text = message.replace("\0", "").replace("\r\n", "\n").strip() or _DEFAULT_MESSAGE
    return f"{text}\n".encode("utf-8", "replace")
