"""Text of outputs is never cut within a character."""

from hypothesis import given
from hypothesis import strategies as st

from anyon.processes.text import TextDecoder


@given(st.text(), st.lists(st.integers(1, 7)))
def test_any_cut_gives_the_same_text(text, lengths):
    """However the bytes are cut, the text is the same, and no piece has a replacement in it."""
    data, pieces, decoder = text.encode(), [], TextDecoder()
    for length in lengths:
        pieces.append(decoder.feed(data[:length]))
        data = data[length:]
    pieces += [decoder.feed(data), decoder.finish()]
    assert "".join(pieces) == text


def test_a_hangul_syllable_waits_for_its_last_byte():
    """Two bytes of three give nothing yet; at the end what is cut shows as such."""
    decoder = TextDecoder()
    data = "한글".encode()
    assert decoder.feed(data[:2]) == ""
    assert decoder.waiting_bytes == 2
    assert decoder.feed(data[2:5]) == "한"
    assert decoder.finish() == "\ufffd"
    assert decoder.feed(b"\xffok") == "\ufffdok"
