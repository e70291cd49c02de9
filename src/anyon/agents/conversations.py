"""The growing list of entries of one run, and what changed in it."""

from collections.abc import Sequence
from dataclasses import replace

from anyon.agents import entries
from anyon.agents.agent import Patch
from anyon.agents.entries import Entry

BLOCK_CHARACTERS = 4 * 1024
"""How much running text one entry takes before the next one is begun."""


class Conversation:
    """Entries by index. Changes gather until they are taken, one for each entry that changed.

    One is enough: an entry that is new and changed again before it is taken is still only new.
    """

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._changed: dict[int, Patch] = {}
        self._open_kind: str | None = None
        self._open_text = ""
        self._is_shown = True
        self._tools: dict[str, int] = {}
        self.failure_told = False

    def take(self) -> Sequence[Patch]:
        """Return the changes since the last time, in the order of their entries."""
        self._show()
        changes = [self._changed[index] for index in sorted(self._changed)]
        self._changed.clear()
        return changes

    def add(self, entry: Entry) -> int:
        """Put *entry* at the end and return its index."""
        index = self._append(entry)
        self._open_kind = None
        return index

    def replace(self, index: int, entry: Entry) -> None:
        """Put *entry* in the place of the one at *index*."""
        self._entries[index] = entry
        known = self._changed.get(index)
        self._changed[index] = (
            replace(known, entry=entry) if known else Patch(index=index, entry=entry, is_new=False)
        )

    def entry(self, index: int) -> Entry:
        """Return the entry at *index*."""
        return self._entries[index]

    def write(self, kind: str, text: str) -> None:
        """Add running *text* of a *kind*: to the last entry if that is such text, else to a new one."""
        while text:
            if self._open_kind != kind or len(self._open_text) >= BLOCK_CHARACTERS:
                self._append(_text_entry(kind, ""))
                self._open_kind, self._open_text = kind, ""
            room = BLOCK_CHARACTERS - len(self._open_text)
            self._open_text += text[:room]
            self._is_shown = False
            text = text[room:]

    def is_writing(self, kind: str) -> bool:
        """Say whether the last entry is running text of that *kind*."""
        return self._open_kind == kind

    def open_tool(self, call: str, entry: Entry) -> None:
        """Add the entry of a tool call, or change it when that *call* is already open."""
        if call in self._tools:
            self.replace(self._tools[call], entry)
        else:
            self._tools[call] = self.add(entry)

    def tool(self, call: str) -> Entry | None:
        """Return the entry of an open tool call, or None if there is none."""
        return self._entries[self._tools[call]] if call in self._tools else None

    def close_tool(self, call: str, entry: Entry) -> None:
        """Give a tool call its last entry; one that was never opened is added."""
        if call in self._tools:
            self.replace(self._tools.pop(call), entry)
        else:
            self.add(entry)

    def close_all_tools(self) -> None:
        """Mark the calls that got no result as failed."""
        for index in self._tools.values():
            self.replace(index, entries.with_status(self._entries[index], entries.FAILED))
        self._tools.clear()

    def fail(self, reason: str, *, setup_required: bool = False) -> None:
        """Add the agent's own word on why the run fails; then its exit code need not be told."""
        self.failure_told = True
        self.add(entries.error(reason, setup_required=setup_required))

    def _show(self) -> None:
        """Bring the entry of the running text up to it: once for all that was written meanwhile."""
        if self._open_kind is not None and not self._is_shown:
            self._is_shown = True
            shown = self._open_text.removesuffix("\n")
            self.replace(len(self._entries) - 1, _text_entry(self._open_kind, shown))

    def _append(self, entry: Entry) -> int:
        self._show()
        index = len(self._entries)
        self._entries.append(entry)
        self._changed[index] = Patch(index=index, entry=entry, is_new=True)
        return index


def _text_entry(kind: str, text: str) -> Entry:
    return entries.error(text) if kind == "error_message" else entries.message(kind, text)
