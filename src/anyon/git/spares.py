"""A spare worktree, made ahead: an attempt takes it by two renames instead of writing every file.

There is at most one in a project, ``.worktrees/anyon-spare``, on no branch and locked. The mark
``anyon-spare`` in its administrative directory is written last and removed first: one without it
is nobody's and may be deleted. It is only taken when git finds it as it was made, so what a
program did to it on its way through the workspace is never an attempt's beginning.
"""

from anyon.git.commands import Commands
from anyon.git.names import check_ref

# Where git keeps something of a worktree that is decided at its making, it is made when needed.
SPARE = r"""
spare=/workspace/.worktrees/anyon-spare spared=.git/worktrees/anyon-spare
in_spare() { git -C "$spare" -c safe.directory="$spare" "$@"; }
may_spare() {
  [ ! -e .git/reftable ] && [ ! -e .git/config.worktree ] && [ ! -e .git/info/sparse-checkout ] &&
    [ ! -L .worktrees ]
}
is_clean() {  # at commit $1
  state=$(in_spare status --porcelain=v2 --branch --ignored --untracked-files=normal) || return 1
  [ "$state" = "# branch.oid $1
# branch.head (detached)" ]
}
find_spare() {  # sets $oid to its commit, and looks at its files meanwhile: $look tells
  oid='' look=
  [ -e "$spared/anyon-spare" ] && may_spare || return 1
  if [ -d "$spare" ] && [ ! -L "$spare" ] && [ -f "$spare/.git" ] && [ -f "$spared/HEAD" ]; then
    read -r oid <"$spared/HEAD" || oid=
    case $oid in '' | *[!0-9a-f]*) oid= ;; esac
  fi
  if [ -z "$oid" ]; then
    rm -f -- "$spared/anyon-spare"
    return 1
  fi
  is_clean "$oid" &
  look=$!
}
bring_spare() {  # to commit $1; attributes decide how files are written, so they must be the same
  [ -n "$oid" ] || return 1
  if ! wait "$look"; then  # one that is not as it was made is given up
    rm -f -- "$spared/anyon-spare"
    return 1
  fi
  if [ "$oid" = "$1" ]; then return; fi
  git diff --quiet --no-ext-diff "$oid" "$1" -- ':(glob)**/.gitattributes' || return 1
  rm -f -- "$spared/anyon-spare"
  in_spare reset -q --hard "$1" && is_clean "$1"
}
write_worktree() {  # at $path, administered in $admin, with HEAD $1; by hand what git takes three programs for
  may_spare && mkdir -p -- "$path" "$admin" && printf anyon >"$admin/locked" &&
    printf '%s\n' "$path/.git" >"$admin/gitdir" && printf '../..\n' >"$admin/commondir" &&
    printf '%s\n' "$1" >"$admin/HEAD" && printf 'gitdir: %s\n' "/workspace/$admin" >"$path/.git" &&
    git -C "$path" -c safe.directory="$path" reset -q --hard
}
take_spare() {  # as the worktree $path of $branch; until its mark anyon-ready it is half made
  mv -- "$spared" "$admin" && mv -- "$spare" "$path" &&
    printf '%s\n' "$path/.git" >"$admin/gitdir" &&
    printf 'gitdir: %s\n' "/workspace/$admin" >"$path/.git" &&
    printf 'ref: refs/heads/%s\n' "$branch" >"$admin/HEAD"
}
"""
# The files are written without the repository's lock: nobody waits for a spare. Its own lock
# keeps a maker that outlived its server apart from the next.
_PREPARE = (
    SPARE
    + r"""
command -v flock >/dev/null && may_spare || exit 0
exec 8>>.git/anyon-spare.lock
flock -n 8 || exit 0
commit=$(resolve "$1") || exit "$BRANCH_UNKNOWN"
if [ -e "$spared/anyon-spare" ] && [ -f "$spare/.git" ] &&
  [ "$(git --git-dir="$spared" rev-parse -q --verify HEAD)" = "$commit" ]; then exit 0; fi
rm -f -- "$spared/anyon-spare"
exec 9>&-
rm -rf -- "$spare" "$spared"
path=$spare admin=$spared
write_worktree "$commit" >&2 || {
  code=$?
  rm -rf -- "$spare" "$spared"
  exit "$code"
}
: >"$spared/anyon-spare"
"""
)


async def prepare_spare(commands: Commands, base: str) -> None:
    """Have a spare worktree at *base*, where the container can keep one safely."""
    async with commands.writing:
        pass  # whoever waits for files of his own goes first
    await commands.write(_PREPARE, check_ref(base))
