"""What may be attached as a picture, and what its file is named."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyon.domain import pictures, prompts
from anyon.domain.errors import TooLargeError, UnfitFileError
from anyon.domain.ids import PictureId, new_id

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
GOOD = {
    "a.png": PNG,
    "a.PNG": PNG,
    "a.jpg": b"\xff\xd8\xff\xe0" + bytes(8),
    "a.jpeg": b"\xff\xd8\xff\xe1",
    "a.gif": b"GIF89a",
    "a.webp": b"RIFF\x0a\x00\x00\x00WEBPVP8 ",
    "a.bmp": b"BM" + bytes(12) + b"\x28\x00\x00\x00",
    "a.svg": b'<?xml version="1.0"?><!DOCTYPE svg PUBLIC "x" "y"><!-- c -->' + SVG,
}


@pytest.mark.parametrize("name", GOOD)
def test_each_kind_is_known_by_its_content(name: str) -> None:
    """The content of each kind that is taken is recognized, whatever the case of the ending."""
    assert pictures.type_of(name, GOOD[name]).startswith("image/")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", b""),
        ("a.png", b"\x89PNG"),
        ("a.png", GOOD["a.jpg"]),
        ("a.png", SVG),
        ("a.bmp", b"BMW is a car maker"),
        ("a.webp", b"RIFF\x0a\x00\x00\x00WAVEfmt "),
        ("a.svg", b"<html><svg/></html>"),
        ("a.svg", b"<svg>"),
        ("a.svg", b"svg"),
        ("a.svg", b'<?xml version="1.0" encoding="x-nobody"?><svg/>'),
        ("a.svg", b'<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><svg>&b;</svg>'),
        ("a.svg", b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>'),
        ("a.jpg", b"#!/bin/sh\n"),
    ],
)
def test_what_is_not_what_it_is_called_is_refused(name: str, content: bytes) -> None:
    """Empty, cut off, of another kind, or XML that could grow or read files: refused, and said why."""
    with pytest.raises(UnfitFileError) as caught:
        pictures.type_of(name, content)
    assert (caught.value.code, caught.value.status) == ("image_unreadable", 400)
    assert name in caught.value.hint


def test_the_size_is_bounded() -> None:
    """20 MiB are taken, a byte more is not; the message is the one that clients know."""
    pictures.check_size(pictures.MOST_BYTES)
    with pytest.raises(TooLargeError) as caught:
        pictures.check_size(pictures.MOST_BYTES + 1)
    assert caught.value.status == 413
    assert caught.value.message == (
        "This image is too large (20.0 MB). Maximum file size is 20.0 MB."
    )


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("../../x.png", "x.png"),
        ("C:\\Users\\me\\x.PNG", "x.PNG"),
        ("a\0b.png", "a b.png"),
        ("a\nb\u202ec.gif", "a b c.gif"),
        (".png", "image.png"),
        ("...png", "image.png"),
        ("화면 (1).png", "화면 (1).png"),
        ("\udcff.svg", "?.svg"),
    ],
)
def test_names_lose_paths_and_control_characters(raw: str, name: str) -> None:
    """What is left of a name is its last part, as a line."""
    assert pictures.name_of(raw) == name


@pytest.mark.parametrize("raw", ["", "png", "x.exe", "x.png.sh", "x.png/", "a.png\0"])
def test_other_endings_are_refused(raw: str) -> None:
    """A name without the ending of a picture is none's."""
    if raw == "a.png\0":  # a character that goes leaves the ending
        assert pictures.name_of(raw) == "a.png"
        return
    with pytest.raises(UnfitFileError) as caught:
        pictures.name_of(raw)
    assert (caught.value.code, caught.value.status) == ("image_type_unknown", 400)


@given(st.text(max_size=400), st.sampled_from(["png", "JPG", "svg"]))
def test_any_name_becomes_one_that_is_safe(stem: str, ending: str) -> None:
    """Whatever it is called, its file is one name that shells, Markdown and file systems take as it is."""
    name = pictures.name_of(f"{stem}.{ending}")
    assert len(name) <= pictures.NAME_LIMIT
    assert not set(name) & set("/\\\0")
    assert all(unicodedata.category(c) not in {"Cc", "Cs", "Zl", "Zp"} for c in name)
    file = pictures.file_of(PictureId(new_id()), name)
    assert pictures.is_file(file)
    assert len(file.encode()) <= 255
    assert not set(file) & set(" ()[]'\"`$;&|<>*?!~#%\t\n/\\")
    prompt = f"look: ![{stem.replace(']', '').replace(chr(10), ' ')}](.vibe-images/{file})"
    assert prompts.pictures_in(prompt) == [file]
    assert f"(/workspace/.worktrees/w/.vibe-images/{file})" in prompts.with_pictures_of(
        prompt, "/workspace/.worktrees/w"
    )


@pytest.mark.parametrize("name", ["", ".", "..", ".x.png", "a/b.png", "a b.png", "x.sh", "a\n.png"])
def test_files_of_strangers_are_checked(name: str) -> None:
    """A recorded name that is no plain name of a picture is not taken."""
    assert not pictures.is_file(name)


def test_only_pictures_paths_are_made_whole() -> None:
    """Other links, and words that are no Markdown, stay as they were written."""
    words = (
        "[x](.vibe-images/a.png) .vibe-images/b.png ![x](other/c.png) ![](.vibe-images/../d.png)"
    )
    assert prompts.with_pictures_of(words, "/w") == words
    assert prompts.pictures_in(words) == []
    assert prompts.pictures_in("![](.vibe-images/a.png) ![b](.vibe-images/a.png)") == ["a.png"]
