"""What the server notes beside a process when it starts it, for the server that adopts it.

It is the first line of ``command``, a comment to the shell that reads that file. Like all in that
directory it may have been rewritten by whoever runs inside: then the defaults hold.
"""

import json
from dataclasses import dataclass
from datetime import timedelta

from anyon.processes.directories import SMALL_BYTES, ProcessDirectory

_DEFAULT_CAP_BYTES = 64 * 1024 * 1024
_MARK = b"# anyon "


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """``boot`` names the machine's boot; ``oom_kills`` is the container's count before the start."""

    output_cap_bytes: int = _DEFAULT_CAP_BYTES
    timeout: timedelta | None = None
    boot: str = ""
    oom_kills: int = 0

    def to_bytes(self) -> bytes:
        """Return the line, with its end."""
        seconds = None if self.timeout is None else self.timeout.total_seconds()
        facts = {
            "cap": self.output_cap_bytes,
            "timeout": seconds,
            "boot": self.boot,
            "oom": self.oom_kills,
        }
        return _MARK + json.dumps(facts).encode() + b"\n"


def parse_record(content: bytes) -> Record:
    """Return what the first line of *content* notes, or the defaults if it notes nothing of sense."""
    line = content.partition(b"\n")[0]
    try:
        facts = json.loads(line.removeprefix(_MARK)) if line.startswith(_MARK) else {}
        seconds = facts.get("timeout")
        return Record(
            output_cap_bytes=max(1, int(facts.get("cap", _DEFAULT_CAP_BYTES))),
            timeout=None if seconds is None else timedelta(seconds=float(seconds)),
            boot=str(facts.get("boot", "")),
            oom_kills=max(0, int(facts.get("oom", 0))),
        )
    except (ValueError, TypeError, AttributeError, OverflowError):
        return Record()


def record_of(directory: ProcessDirectory) -> Record:
    """Return what was noted when this process was started."""
    return parse_record(directory.read("command", 0, SMALL_BYTES))
