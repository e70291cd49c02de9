"""Where a repository comes from: made new, cloned, or imported; and the git that serves it."""

import re
from datetime import timedelta

from anyon.domain.errors import AnyonError, MissingError, UnavailableError
from anyon.git.commands import Commands
from anyon.git.names import check_clone_url

MINIMUM_GIT = (2, 39)
CLONE_DEADLINE = timedelta(hours=1)

_EXCLUDE = r"""
mkdir -p .git/info .git/hooks
grep -qxF '.worktrees/' .git/info/exclude 2>/dev/null || printf '.worktrees/\n' >>.git/info/exclude
"""
# A first commit of nothing: the index and the files are their owner's, and stay as they are.
_FIRST_COMMIT = r"""
if ! has 'HEAD^{commit}'; then
  identity
  first=$(git commit-tree -m 'First commit' "$(git hash-object -w -t tree /dev/null)")
  git update-ref -m 'anyon: first commit' HEAD "$first" ''
fi
"""
_INIT = r"""
if [ -e .git ]; then
  repository
  if [ -e .git/HEAD ] && [ ! -e .git/anyon-init ]; then exit 0; fi
fi
mkdir -p .git
: >.git/anyon-init
git init -q -b main --template=
mkdir -p .git/info .git/hooks  # what a template would bring, for tools that expect them
grep -qxF '.worktrees/' .gitignore 2>/dev/null || printf '.worktrees/\n' >>.gitignore
if ! has 'HEAD^{commit}'; then
  identity
  rm -f .git/index.lock
  git add -A --ignore-errors || [ $? -eq 1 ]
  git commit -q --no-verify -m 'First commit'
fi
rm .git/anyon-init
"""
_IMPORT = "repository\n" + _EXCLUDE + _FIRST_COMMIT
# The rename of .git is the moment at which there is a repository; before it, a failure leaves
# nothing, after it the mark makes a repeat go on with the checkout.
_CLONE = (
    r"""
IFS= read -r url
if [ ! -e .git/anyon-clone ]; then
  rm -rf .anyon-clone
  [ -z "$(ls -A)" ] || exit "$WORKSPACE_NOT_EMPTY"
  if ! git clone -q --no-checkout --no-recurse-submodules --template= -- "$url" .anyon-clone 9>&-
  then rm -rf .anyon-clone; exit 1; fi
  : >.anyon-clone/.git/anyon-clone
  mv .anyon-clone/.git .git
  rmdir .anyon-clone
fi
rm -f .git/index.lock
if has 'HEAD^{commit}' && ! git reset -q --hard; then
  find . -mindepth 1 -maxdepth 1 -exec rm -rf -- {} +
  exit 1
fi
"""
    + _FIRST_COMMIT
    + _EXCLUDE
    + r"""
rm .git/anyon-clone
"""
)


async def check_git(commands: Commands) -> tuple[int, int]:
    """Return git's (major, minor), or raise MissingError."""
    said = (await commands.read("git --version")).text
    found = re.search(r"(\d+)\.(\d+)", said)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < MINIMUM_GIT:
        raise MissingError(
            f"git in the project's container is too old: {said}",
            code="git_too_old",
            hint="Use an image with git {}.{} or later.".format(*MINIMUM_GIT),
        )
    return version


async def init(commands: Commands) -> None:
    """Make a new repository with a first commit of what is there; one that is there stays."""
    async with commands.writing:
        await commands.bare(_INIT)


async def prepare_imported(commands: Commands) -> None:
    """Keep worktrees out of an existing repository's status, and see that it has a commit."""
    async with commands.writing:
        await commands.write(_IMPORT)


async def clone(commands: Commands, url: str) -> None:
    """Clone *url* into the empty workspace; on failure nothing is left there."""
    check_clone_url(url)
    async with commands.writing:
        try:
            # By stdin: a URL may carry a password, and an argument list is there for all to read.
            await commands.bare(_CLONE, stdin=f"{url}\n".encode(), deadline=CLONE_DEADLINE)
        except AnyonError as error:
            if error.code != "git_failed":
                raise
            raise UnavailableError(
                f"cloning failed: {error.message}",
                code="clone_failed",
                hint="Check the address, and that the container can reach it and may read it.",
            ) from error
