"""Which of a machine's package sources an image is made from."""

from pathlib import Path

import pytest

from anyon.domain.errors import MissingError
from anyon.images import sources

DEB822 = """\
Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""
THIRD_PARTY = """\
Types: deb
URIs: https://vendor.example/node
Suites: nodistro
Components: main
"""
ONE_LINE = """\
# deb http://old.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main contrib
deb http://mirror.example/docker bookworm stable
deb-src http://mirror.example/debian bookworm main
deb cdrom:[Debian] bookworm main
"""


def test_the_distributions_own_sources_are_taken() -> None:
    """A deb822 file's stanzas of the release and its pockets are kept whole, comments apart."""
    found = sources.select({"debian.sources": DEB822}, "bookworm")
    assert len(found) == 2
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" in found[0]
    assert "comment" not in found[0]


def test_other_sources_are_left_out() -> None:
    """A third party's source, another release's and a disabled one are not the distribution's."""
    disabled = DEB822.replace("Types: deb\n", "Types: deb\nEnabled: no\n")
    texts = {"node.sources": THIRD_PARTY, "off.sources": disabled, "notes.txt": DEB822}
    assert sources.select(texts, "bookworm") == []
    assert sources.select({"debian.sources": DEB822}, "trixie") == []


def test_one_line_sources_become_stanzas() -> None:
    """The old form is read too, with its key; sources of source code and discs are not."""
    (stanza,) = sources.select({"sources.list": ONE_LINE}, "bookworm")
    assert stanza.splitlines() == [
        "Types: deb",
        "URIs: http://mirror.example/debian",
        "Suites: bookworm",
        "Components: main contrib",
        "Signed-By: /k.gpg",
    ]


def test_a_machine_without_sources_is_told_so(tmp_path: Path) -> None:
    """No mirror is made up: without sources there is an error that says what is needed."""
    (tmp_path / "os-release").write_text('VERSION_CODENAME="bookworm"\n')
    (tmp_path / "apt" / "sources.list.d").mkdir(parents=True)
    with pytest.raises(MissingError) as missing:
        sources.of_host(etc=tmp_path)
    assert missing.value.code == "no_package_sources"
    (tmp_path / "apt" / "sources.list.d" / "debian.sources").write_text(DEB822)
    release, text = sources.of_host(etc=tmp_path)
    assert release == "bookworm"
    assert text.count("Types: deb") == 2
