"""Names as text: any bytes have one harmless text, and it leads back to them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyon.domain.errors import InvalidInputError
from anyon.domain.paths import parsed, shown

NAMES = st.binary(min_size=1, max_size=40).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."}
)


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_every_path_has_a_text_that_leads_back(names: list[bytes]) -> None:
    """Bytes to text to bytes is the same again, and the text can be shown anywhere."""
    path = b"/".join(names)
    text = shown(path)
    assert text.isprintable()
    assert parsed(text) == path


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("workspace/한글 이름.txt".encode(), "workspace/한글 이름.txt"),
        (b"a/\xff\xfe", "a/%FF%FE"),
        (b"a/line\nbreak\x1b[2J", "a/line%0Abreak%1B[2J"),
        (b"a/100%", "a/100%25"),
        ("a/\u202eevil".encode(), "a/%E2%80%AEevil"),
        (b"a/ ", "a/ "),
    ],
)
def test_names_stay_readable(path: bytes, text: str) -> None:
    """What people write stays as it is; what a terminal would obey is escaped."""
    assert shown(path) == text
    assert parsed(text) == path


@pytest.mark.parametrize(
    "text",
    [
        "/etc/passwd",
        "workspace/",
        "workspace//a",
        "workspace/../..",
        "..",
        "./a",
        "a/%2e%2e/b",
        "a%00b",
        "100%",
        "%g1",
        "\ud800",
        "a/" * 40_000 + "a",
    ],
)
def test_what_is_no_path_is_refused(text: str) -> None:
    """A path that leads out, or that no checkpoint can hold, is an error of the caller's."""
    with pytest.raises(InvalidInputError) as refused:
        parsed(text)
    assert refused.value.code == "bad_path"


def test_no_path_is_all_trees() -> None:
    """The empty text names what is above the trees."""
    assert parsed("") == b""
