"""Names and texts that people give."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyon.domain import names
from anyon.domain.errors import InvalidInputError


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("", "name_empty"),
        (" \t\n ", "name_empty"),
        ("x" * 101, "name_too_long"),
        ("a\nb", "name_has_control_characters"),
        ("a\x1b[31mb", "name_has_control_characters"),
        ("a\u202egnp", "name_has_control_characters"),
        ("../etc", "name_path_like"),
        ("a\\b", "name_path_like"),
        ("..", "name_path_like"),
        ("a\ud800", "not_unicode"),
    ],
)
def test_bad_project_names(raw: str, code: str) -> None:
    """Each kind of name that cannot be has its own stable code."""
    with pytest.raises(InvalidInputError) as caught:
        names.project_name(raw)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "raw", ["demo", " demo ", "내 프로젝트", "👩‍👩‍👧‍👦 family", "v1.2", "x" * 100]
)
def test_good_project_names(raw: str) -> None:
    """Any script, emoji with joiners and dots are names; blanks around are dropped."""
    assert names.project_name(raw) == raw.strip()


def test_titles_are_made_from_descriptions() -> None:
    """Without a title the first line that says something is taken, cut, and without control characters."""
    assert names.task_title(None, "\n\n  Fix it \nrest") == "Fix it"
    assert names.task_title(" ", "a\x1b[0mb") == "a [0mb"
    long = names.task_title(None, "word " * 100)
    assert len(long) <= names.MADE_TITLE_LIMIT
    assert long.endswith("…")


def test_emoji_titles() -> None:
    """A title of 300 of the longest emoji is kept whole."""
    title = "👩‍👩‍👧‍👦" * 300
    assert names.task_title(title, None) == title


@pytest.mark.parametrize(
    ("title", "description", "code"),
    [
        (None, None, "title_empty"),
        ("", " \n ", "title_empty"),
        ("x" * 4001, None, "title_too_long"),
        ("a\x00b", None, "title_has_control_characters"),
    ],
)
def test_bad_titles(title: str | None, description: str | None, code: str) -> None:
    """A title that cannot be is refused, with a code."""
    with pytest.raises(InvalidInputError) as caught:
        names.task_title(title, description)
    assert caught.value.code == code


def test_texts_are_bounded_in_bytes() -> None:
    """A description of exactly 1 MiB passes, one byte more does not; the size is that of UTF-8."""
    assert names.text("x" * names.TEXT_LIMIT, "it")
    for raw, code in [("가" * (names.TEXT_LIMIT // 3 + 1), "too_long"), ("a\0", "has_nul")]:
        with pytest.raises(InvalidInputError) as caught:
            names.text(raw, "it")
        assert caught.value.code == code


@given(st.text(max_size=300))
def test_names_are_kept_or_refused(raw: str) -> None:
    """No text whatever makes the checks fail in another way than by refusing it."""
    for check in (names.project_name, names.token_name, lambda text: names.task_title(text, text)):
        try:
            checked = check(raw)
        except InvalidInputError:
            continue
        assert checked
        assert not any(unicodedata.category(c) == "Cc" for c in checked)
        checked.encode()
