"""Bars: they show percents, and one that is late shows nothing where there is nothing to show."""

import io
import sys

import pytest

from anyon.cli.bars import bar


class Terminal(io.StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def looked_at(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return what is shown on stderr from now on (pytest puts its own streams in place before each test)."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


def test_a_late_bar_appears_with_the_first_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that did not have to wait for files leaves nothing on the screen."""
    screen = looked_at(monkeypatch)
    with bar("Waking", is_late=True):
        pass
    assert "Waking" not in screen.getvalue()
    with bar("Waking", is_late=True) as shown:
        shown.show(42, 100)
    assert "Waking" in screen.getvalue()
    assert "42%" in screen.getvalue()


def test_another_bar_is_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the former: who waits for something that takes its time sees that at once."""
    screen = looked_at(monkeypatch)
    with bar("Saving"):
        pass
    assert "Saving" in screen.getvalue()
