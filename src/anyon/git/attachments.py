"""Files laid into a worktree for its agent, in a folder of their own that git does not see.

They are written inside the container, by its own shell, and never through a link: the worktree is
its tenant's, who may have put one where the folder or a file is to be. The folder's own
``.gitignore`` keeps all of it, and itself, out of commits: it lies deepest, so nothing that the
repository ignores or does not ignore overrules it.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from anyon.domain.errors import InvalidInputError
from anyon.git.commands import WRITE_DEADLINE, Commands
from anyon.git.names import check_worktree

# Having gone in, the shell stays in that directory whatever becomes of its name; so it is looked
# at from within whether it is the one that was meant. What is in the way is its tenant's, and stays.
_ENTER = r"""
enter() {  # the folder $2 of the worktree $1
  cd -P -- "$1" 2>/dev/null || exit "$WORKTREE_UNKNOWN"
  [ "$(pwd -P)" = "$1" ] || exit "$NOT_LAID"
  if [ -L "$2" ]; then exit "$NOT_LAID"; fi
  mkdir -p -- "$2" 2>/dev/null && cd -P -- "$2" 2>/dev/null || exit "$NOT_LAID"
  [ "$(pwd -P)" = "$1/$2" ] || exit "$NOT_LAID"
}
lay() {  # stdin as the file $1: beside first, for a rename follows no link
  if [ -d "$1" ] && [ ! -L "$1" ]; then exit "$NOT_LAID"; fi
  beside=.laid.$$
  rm -f -- "$beside"
  (set -C; cat >"$beside") || exit "$NOT_LAID"
  mv -f -- "$beside" "$1"
}
"""
_MISSING = (
    _ENTER
    + r"""
enter "$1" "$2"
shift 2
if [ -L .gitignore ] || [ "$(cat .gitignore 2>/dev/null)" != '*' ]; then echo '*' | lay .gitignore; fi
while [ $# -gt 0 ]; do
  if [ -L "$1" ] || [ ! -f "$1" ] || { [ -n "$2" ] && [ "$(wc -c <"$1")" -ne "$2" ]; }; then
    printf '%s\n' "$1"
  fi
  shift 2
done
"""
)
_LAY = (
    _ENTER
    + r"""
enter "$1" "$2"
lay "$3"
"""
)


async def missing_attachments(
    commands: Commands, worktree: PurePosixPath, folder: str, files: Mapping[str, int | None]
) -> Sequence[str]:
    """Return which of *files* do not lie in the worktree's *folder*, which is made if need be."""
    check_worktree(worktree)
    sizes = {_checked(name): "" if size is None else str(size) for name, size in files.items()}
    pairs = [part for pair in sizes.items() for part in pair]
    answer = await commands.bare(
        _MISSING, str(worktree), _checked(folder), *pairs, deadline=WRITE_DEADLINE
    )
    return answer.text.splitlines()


async def lay_attachment(
    commands: Commands, worktree: PurePosixPath, folder: str, name: str, content: bytes
) -> None:
    """Write a file into the worktree's *folder*, in place of what has its name."""
    check_worktree(worktree)
    await commands.bare(
        _LAY,
        str(worktree),
        _checked(folder),
        _checked(name),
        stdin=content,
        deadline=WRITE_DEADLINE,
    )


def _checked(name: str) -> str:
    if not name or name in {".", ".."} or name[0] == "-" or set(name) & set("/\\\0\n"):
        raise InvalidInputError(f"{name!r} is not the name of a file", code="bad_file_name")
    return name
