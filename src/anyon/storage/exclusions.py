"""What of a project is not captured: what can be fetched or made again, and credentials."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from anyon.domain.errors import InvalidInputError

CACHES = (
    "home/.cache/*",
    "home/.npm/_cacache",
    "home/.npm/_logs",
    "home/.cargo/registry",
    "home/.cargo/git",
    "home/.gradle/caches",
    "home/.m2/repository",
    "home/go/pkg/mod",
    "home/.local/share/pnpm/store",
    "home/.bun/install/cache",
)
# What is installed lies in a layer: docker's is the tree itself; bubblewrap has one over ``/``,
# or several over parts of it. Beside each it needs a directory of its own to work in.
_LAYERS = ("system/", "system/upper/")
INSTALLED = (
    *(
        f"{layer}{path}"
        for layer in _LAYERS
        for path in (
            "var/cache/apt",
            "var/lib/apt/lists",
            "tmp/*",
            "run/*",
            "proc",
            "sys",
            "dev",
        )
    ),
    "system/layers/var/upper/cache/apt",
    "system/layers/var/upper/lib/apt/lists",
    "system/work",
    *(f"system/layers/{part}/work" for part in ("usr", "etc", "opt", "var")),
)
CREDENTIALS = (
    "home/.claude/.credentials.json",
    "home/.codex/auth.json",
    "home/.gemini/oauth_creds.json",
    "home/.local/share/opencode/auth.json",
    "home/.qwen/oauth_creds.json",
    "home/.config/github-copilot/*.json",
    "home/.config/gh/hosts.yml",
    "home/.config/gcloud",
    "home/.aws/credentials",
    "home/.netrc",
    "home/.git-credentials",
    "home/.npmrc",
)
SPARES = ("workspace/.worktrees/anyon-spare",)
"""Worktrees that are made ahead of need and hold nobody's work."""
DEFAULTS = CACHES + INSTALLED + CREDENTIALS + SPARES


@dataclass(slots=True)
class Rules:
    """The exclusions that still apply below some directory."""

    ends: set[str] = field(default_factory=set)
    below: dict[str, "Rules"] = field(default_factory=dict)

    def excludes(self, name: str) -> bool:
        """Say whether the entry *name* of this directory is left out."""
        return name in self.ends or any("*" in e and fnmatchcase(name, e) for e in self.ends)

    def inside(self, name: str) -> "Rules | None":
        """Return the rules for the directory *name*, or None if none is left."""
        return self.below.get(name)


def parse(patterns: Iterable[str]) -> Mapping[str, Rules]:
    """Return the rules by root of *patterns*: ``<root>/<path>``, with ``*`` in the last name.

    ``.git`` can never be excluded, nor a whole root.
    """
    top = Rules()
    for pattern in patterns:
        *directories, last = pattern.split("/")
        if not directories or not last or not all(directories) or ".git" in [*directories, last]:
            raise InvalidInputError(f"{pattern!r} cannot be excluded", code="bad_exclusion")
        rules = top
        for directory in directories:
            rules = rules.below.setdefault(directory, Rules())
        rules.ends.add(last)
    return top.below
