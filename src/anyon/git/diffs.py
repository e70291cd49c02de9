"""What an attempt has changed, committed or not, and what a commit has."""

import uuid
from pathlib import PurePosixPath

from anyon.git.changes import (
    MAX_FILE_BYTES,
    Change,
    file_diff,
    parse_changes,
    parse_objects,
    parse_sizes,
    wanted,
)
from anyon.git.commands import Commands
from anyon.git.names import check_commit, check_ref, check_worktree
from anyon.git.repository import FileDiff

_BATCH_BYTES = 16 * MAX_FILE_BYTES  # one answer stays below the cap on a process's output

_LIST = r"""
list() {  # how many bytes of changes, the changes, then the sizes of their objects
  wc -c <"$1"
  cat "$1"
  tr '\0' '\n' <"$1" | sed -n 's/^:[0-7]* [0-7]* \([0-9a-f]*\) \([0-9a-f]*\) [A-Z][0-9]*$/\1 \2/p' |
    tr ' ' '\n' | sort -u | git cat-file --batch-check
}
look='--raw --numstat -z -M -C -l1000 --no-ext-diff --no-textconv --no-color'
"""
# The worktree is staged into an index and an object directory of the diff's own, so that the
# agent's index is untouched and repeated looks leave nothing in the repository.
_DIFF = (
    _LIST
    + r"""
cd -- "$1" 2>/dev/null || exit "$WORKTREE_UNKNOWN"
base=$(resolve "$2") || exit "$BRANCH_UNKNOWN"
base=$(git merge-base "$base" HEAD) || [ $? -eq 1 ]
own=$(git rev-parse --absolute-git-dir)
temporary=/workspace/.git/anyon-tmp/$3
[ "$4" = keep ] || trap 'rm -rf -- "$temporary"' EXIT
mkdir -p "$temporary/objects"
if [ -e "$own/index" ]; then cp "$own/index" "$temporary/index"; fi
export GIT_INDEX_FILE="$temporary/index" GIT_OBJECT_DIRECTORY="$temporary/objects"
export GIT_ALTERNATE_OBJECT_DIRECTORIES=/workspace/.git/objects
git -c core.looseCompression=0 -c pack.compression=0 add -A --ignore-errors . 2>"$temporary/said" || {
  [ $? -eq 1 ] || { cat "$temporary/said" >&2; exit 1; }
}
git diff-index --cached $look "${base:-$(git hash-object -t tree /dev/null)}" -- >"$temporary/list"
list "$temporary/list"
"""
)
_COMMIT = (
    _LIST
    + r"""
has "$1^{commit}" || exit "$COMMIT_UNKNOWN"
parent=$(git rev-parse -q --verify "$1^1") || parent=$(git hash-object -t tree /dev/null)
temporary=/workspace/.git/anyon-tmp/$2
trap 'rm -rf -- "$temporary"' EXIT
mkdir -p "$temporary"
git diff-tree -r $look "$parent" "$1" -- >"$temporary/list"
list "$temporary/list"
"""
)
_CONTENTS = r"""
[ "$2" = keep ] || trap 'rm -rf -- "/workspace/.git/anyon-tmp/$1"' EXIT
export GIT_ALTERNATE_OBJECT_DIRECTORIES="/workspace/.git/anyon-tmp/$1/objects"
git cat-file --batch
"""
_FORGET = r"""
rm -rf -- "/workspace/.git/anyon-tmp/$1"
"""


async def diff(
    commands: Commands, worktree: PurePosixPath, *, base: str, with_contents: bool
) -> list[FileDiff]:
    """Return the change from the merge base with *base* to the files in *worktree*."""
    check_worktree(worktree)
    token = uuid.uuid4().hex
    try:
        answer = await commands.read(
            _DIFF,
            str(worktree),
            check_ref(base),
            token,
            "keep" if with_contents else "drop",
            worktree=worktree,
        )
        return await _with_contents(commands, answer.stdout, token, with_contents=with_contents)
    except BaseException:  # a cancelled caller's too: nobody else knows of this directory
        if with_contents:
            await commands.read(_FORGET, token)
        raise


async def diff_of_commit(commands: Commands, commit: str) -> list[FileDiff]:
    """Return *commit*'s change against its first parent, or against nothing."""
    token = uuid.uuid4().hex
    answer = await commands.read(_COMMIT, check_commit(commit), token)
    return await _with_contents(commands, answer.stdout, token, with_contents=True)


async def _with_contents(
    commands: Commands, listing: bytes, token: str, *, with_contents: bool
) -> list[FileDiff]:
    length, _, rest = listing.partition(b"\n")
    changes = parse_changes(rest[: int(length)])
    sizes = parse_sizes(rest[int(length) :])
    chosen = wanted(changes, sizes) if with_contents else {}
    objects: dict[str, bytes] = {}
    groups = batches(chosen, _BATCH_BYTES) or [[]]
    for group in groups if with_contents else []:
        answer = await commands.read(
            _CONTENTS,
            token,
            "drop" if group is groups[-1] else "keep",
            stdin="".join(f"{name}\n" for name in group).encode(),
        )
        objects.update(parse_objects(answer.stdout))
    return [_shown(change, objects, with_contents=with_contents) for change in changes]


def _shown(change: Change, objects: dict[str, bytes], *, with_contents: bool) -> FileDiff:
    found = file_diff(change, objects)
    if with_contents:
        return found
    return FileDiff(
        kind=found.kind,
        old_path=found.old_path,
        new_path=found.new_path,
        old_content=None,
        new_content=None,
        content_omitted=True,
        additions=found.additions,
        deletions=found.deletions,
    )


def batches(sizes: dict[str, int], limit: int) -> list[list[str]]:
    """Return the names in groups of at most *limit* bytes each (one name at least)."""
    groups: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not groups or size > room:
            groups.append([])
            room = limit
        groups[-1].append(name)
        room -= size
    return groups
