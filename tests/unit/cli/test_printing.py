"""Other people's output, made harmless for a terminal."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from anyon.cli.printing import Cleaner, harmless, show_error

CORPUS = [
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1b]0;title\x07",
    "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x1b[31mred\x1b[0m",
    "\x1b[21t",
    "\x1b[2J\x1b[H",
    "\x1bPq#0\x1b\\",
    "\x9b31m",
    "\x9d0;t\x9c",
    "\x1b]0;never ended",
    "\x1b",
    "\x08\x08\x08",
    "\rforged",
    "\u202eevil\u202c",
    "\x1bc",
    "\x00\x01\x02",
]


def is_harmless(text: str) -> bool:
    """Say whether a terminal would only show it."""
    turns = {0x202A, 0x202B, 0x202C, 0x202D, 0x202E}
    return all(
        c in "\n\t" or (ord(c) >= 0x20 and not 0x7F <= ord(c) < 0xA0 and ord(c) not in turns)
        for c in text
    )


@pytest.mark.parametrize("evil", CORPUS)
def test_no_control_reaches_the_terminal(evil: str) -> None:
    """Colours, titles, clipboard writes and overwriting go; the words around stay."""
    shown = harmless(f"before {evil} after")
    assert is_harmless(shown)
    assert shown.startswith("before")
    assert harmless("\x1b[31mred\x1b[0m") == "red"
    assert not is_harmless(evil)  # the control: raw, it would


@given(st.lists(st.sampled_from([*CORPUS, "한글", "plain\n", "é"]), max_size=6), st.integers(1, 7))
def test_pieces_may_be_cut_anywhere(parts: list[str], size: int) -> None:
    """Cut into pieces of any size, inside characters and sequences, nothing harmful comes through."""
    data = "".join(parts).encode()
    cleaner = Cleaner()
    shown = "".join(cleaner.feed(data[i : i + size]) for i in range(0, len(data), size))
    shown += cleaner.feed(b"", final=True)
    assert is_harmless(shown)


def test_a_syllable_cut_in_two_stays_whole() -> None:
    """UTF-8 is decoded as it comes."""
    cleaner, data = Cleaner(), "한".encode()
    assert cleaner.feed(data[:2]) + cleaner.feed(data[2:]) == "한"


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("status", "is_told"), [(502, True), (404, False)])
def test_the_servers_own_mistakes_name_their_request(
    capsys: pytest.CaptureFixture[str], *, as_json: bool, status: int, is_told: bool
) -> None:
    """By it the operator finds the line in the log; a caller's own mistake needs none."""
    show_error("x", "what happened", "", as_json=as_json, status=status, request_id="r-1")
    assert ("r-1" in capsys.readouterr().err) is is_told
