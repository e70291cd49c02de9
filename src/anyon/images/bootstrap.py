"""How mmdebstrap is told to make a workspace's root file system. Pure."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from anyon.domain.layout import HOME, WORKSPACE
from anyon.images.images import Recipe


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
    user = (
        f'chroot "$1" useradd --uid {recipe.uid} --user-group --home-dir {HOME} --create-home'
        " --shell /bin/bash anyon"
    )
    places = (
        f'mkdir -p "$1{WORKSPACE}" "$1/run/anyon" && '
        f'chown {recipe.uid}:{recipe.uid} "$1{WORKSPACE}" "$1/run/anyon"'
    )
    if not recipe.npm:
        return (user, places)
    return (user, places, *_npm_hooks(recipe.npm))


def _npm_hooks(packages: Sequence[str]) -> Sequence[str]:
    # The registry and the certificates are the machine's, for the time of the installation only.
    names = shlex.join(packages)
    certificates = "/etc/ssl/certs/ca-certificates.crt"
    within = "/var/tmp/anyon-ca.crt"  # noqa: S108 - in a root file system that nobody else sees
    install = (
        f'ca=""; if [ -f {certificates} ]; then cp {certificates} "$1{within}" && ca={within}; fi; '
        "registry=$(npm config get registry 2>/dev/null || true); "
        'chroot "$1" env HOME=/root ${ca:+NODE_EXTRA_CA_CERTS=$ca npm_config_cafile=$ca} '
        "npm install --global --prefix /usr/local --no-fund --no-audit --no-update-notifier "
        f'${{registry:+--registry "$registry"}} -- {names}'
    )
    return (install, f'rm -rf "$1{within}" "$1/root/.npm"')
