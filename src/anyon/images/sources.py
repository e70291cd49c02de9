"""The package sources of this machine's distribution, read as apt reads them.

An image is made from the same mirror as the machine itself: it is the one that is known to be
reachable from here. Third parties' sources on the machine are left out.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from anyon.domain.errors import MissingError

_ETC = Path("/etc")
_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<rest>.+)")
_POCKETS = ("", "-updates", "-security", "-backports")


def of_host(suite: str | None = None, *, etc: Path = _ETC) -> tuple[str, str]:
    """Return the release's name and its sources as one deb822 text.

    Raises MissingError (code ``no_package_sources``) when this machine has none of that release.
    """
    release = suite or codename((etc / "os-release").read_text(encoding="utf-8"))
    apt = etc / "apt"
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    texts = {file.name: file.read_text("utf-8", "replace") for file in files if file.is_file()}
    stanzas = select(texts, release) if release else []
    if not stanzas:
        raise MissingError(
            f"this machine has no package sources of the release {release or '(unknown)'}",
            code="no_package_sources",
            hint="Debian's or Ubuntu's sources are needed below /etc/apt; or build from a Dockerfile",
        )
    return release, "\n".join(stanzas)


def codename(os_release: str) -> str:
    """Return the release's name as ``/etc/os-release`` tells it, or nothing."""
    for line in os_release.splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip().strip('"')
    return ""


def select(texts: Mapping[str, str], release: str) -> list[str]:
    """Return the deb822 stanzas of *release*'s own sources in apt's files (by name)."""
    found: list[str] = []
    for name, text in texts.items():
        if name.endswith(".sources"):
            found += [item for item in _stanzas(text) if _is_own(_fields(item), release)]
        elif name.endswith(".list"):
            found += [item for item in _converted(text) if _is_own(_fields(item), release)]
    return list(dict.fromkeys(found))


def _stanzas(text: str) -> Iterable[str]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for block in re.split(r"\n\s*\n", "\n".join(lines)):
        if block.strip():
            yield block.strip("\n") + "\n"


def _fields(stanza: str) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    key = ""
    for line in stanza.splitlines():
        if line[:1].isspace():
            fields[key] += line.split()
        else:
            key, _, value = line.partition(":")
            key = key.strip().lower()
            fields[key] = value.split()
    return fields


def _converted(text: str) -> Iterable[str]:
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if match is None:
            continue
        suite, *components = match["rest"].split()
        stanza = f"Types: deb\nURIs: {match['uri']}\nSuites: {suite}\n"
        stanza += f"Components: {' '.join(components)}\n"
        for option in (match["options"] or "").split():
            name, _, value = option.partition("=")
            if name.lower() == "signed-by":
                stanza += f"Signed-By: {value.replace(',', ' ')}\n"
        yield stanza


def _is_own(fields: Mapping[str, list[str]], release: str) -> bool:
    own = {f"{release}{pocket}" for pocket in _POCKETS}
    return (
        "deb" in fields.get("types", [])
        and bool(fields.get("suites"))
        and set(fields["suites"]) <= own
        and "main" in fields.get("components", [])
        and "no" not in fields.get("enabled", [])
        and not any(uri.startswith("cdrom:") for uri in fields.get("uris", []))
    )
