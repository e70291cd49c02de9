"""Output as text: bytes that come in any pieces, read as UTF-8 without splitting a character."""

import codecs


class TextDecoder:
    """Turns pieces of one channel into text; what is no UTF-8 becomes U+FFFD.

    A character that is cut by the end of a piece (a Hangul syllable has three bytes) waits for
    the next one.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> str:
        """Return the text that is whole now."""
        return self._decoder.decode(data)

    def finish(self) -> str:
        """Return what was still waiting; after this the decoder begins anew."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of a cut character are held back: text ends that far before the offset."""
        return len(self._decoder.getstate()[0])
