"""What the small files of a process's directory say of its end; pure, and trusting nothing."""

from dataclasses import dataclass
from datetime import datetime

from anyon.domain.states import ExitReason
from anyon.processes.processes import Exit

_SIGKILLED = 128 + 9
_LAST_SIGNAL = 64


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """The content of ``exit``: a code, if anybody could know it, and a reason, if there is one."""

    code: int | None
    reason: ExitReason | None

    def to_bytes(self) -> bytes:
        """Return the file's content, as the wrapper writes it."""
        code = "-" if self.code is None else str(self.code)
        return f"{code} {self.reason or ''}\n".encode()


BROKEN = ExitRecord(None, ExitReason.INTERRUPTED)
"""What an ``exit`` says that is no exit: whoever owns the directory has overwritten it."""


def parse_exit(content: bytes | None) -> ExitRecord:
    """Return what *content* says; BROKEN for anything that the wrapper would not have written."""
    if content is None or not content.endswith(b"\n") or len(content) > 64:
        return BROKEN
    code, _, reason = content[:-1].decode("ascii", "replace").partition(" ")
    known = parse_reason(reason)
    if reason and known is None:
        return BROKEN
    if code == "-":
        return ExitRecord(None, known) if known else BROKEN
    if not code.isascii() or not code.isdigit() or len(code) > 3 or int(code) > 255:
        return BROKEN
    return ExitRecord(int(code), known)


def parse_reason(text: str) -> ExitReason | None:
    """Return the reason that *text* names, or None."""
    try:
        return ExitReason(text)
    except ValueError:
        return None


def may_be_oom(record: ExitRecord) -> bool:
    """Say whether the kernel's killer may have been at work: a KILL that nobody of us sent."""
    return record.reason is None and record.code == _SIGKILLED


def exit_of(record: ExitRecord, *, at: datetime, oom: bool) -> Exit:
    """Return how a process ended, given its record and whether memory was what it ran out of."""
    reason = record.reason
    if reason is None:
        signalled = record.code is not None and 128 < record.code <= 128 + _LAST_SIGNAL
        reason = ExitReason.SIGNALLED if signalled else ExitReason.EXITED
        if oom and may_be_oom(record):
            reason = ExitReason.OOM
    return Exit(code=record.code, reason=reason, at=at)
