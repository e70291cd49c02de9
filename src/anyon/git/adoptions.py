"""Taking over branches of a repository that was used otherwise before, and proving it whole."""

from collections.abc import Mapping
from datetime import timedelta

from anyon.domain.ids import AttemptId
from anyon.git.commands import Commands
from anyon.git.names import check_attempt, check_branch, check_commit, check_ref

FSCK_DEADLINE = timedelta(minutes=30)

# refs/anyon/attempts/<id> says whose a branch is (see worktrees). A commit that the old worktree
# stood at and that its branch does not hold is kept as saved work, so that nothing is lost.
_ADOPT = r"""
branch=$1 base=$2 attempt=$3 head=$4
begun=refs/anyon/attempts/$attempt
tip=$(git rev-parse -q --verify "refs/heads/$branch^{commit}") || exit "$BRANCH_UNKNOWN"
if ! has "$begun"; then
  from=
  if into=$(resolve "$base"); then from=$(git merge-base "$into" "$tip") || from=; fi
  git update-ref "$begun" "${from:-$tip}" ''
fi
[ -n "$head" ] || exit 0
has "$head^{commit}" || exit "$COMMIT_UNKNOWN"
git merge-base --is-ancestor "$head" "$tip" && exit 0
saved=refs/anyon/saved/$attempt/0001
has "$saved" || git update-ref -m 'anyon: migrated' "$saved" "$head" ''
printf '%s\n' "$saved"
"""
_REFS = r"""
repository
git for-each-ref --format='%(refname) %(objectname)'
"""
_FSCK = r"""
repository
git fsck --no-dangling --no-progress --no-reflogs >&2
"""


async def adopt_branch(
    commands: Commands, attempt: AttemptId, *, branch: str, base: str, head: str | None
) -> str | None:
    """Make an existing *branch* the attempt's own; return where *head* was kept, None if it holds it."""
    arguments = (check_branch(branch), check_ref(base), check_attempt(attempt))
    async with commands.writing:
        answer = await commands.write(_ADOPT, *arguments, check_commit(head) if head else "")
    return answer.text or None


async def refs(commands: Commands) -> Mapping[str, str]:
    """Return every reference and the object it names."""
    lines = (await commands.read(_REFS)).stdout.decode("utf-8", "surrogateescape").splitlines()
    return dict(line.rsplit(" ", 1) for line in lines)


async def check_objects(commands: Commands) -> None:
    """Read every object of the repository; ``git_failed`` says what is damaged."""
    await commands.read(_FSCK, deadline=FSCK_DEADLINE)
