"""What may leave the machine in a support bundle: decided by what is known to be harmless; pure.

Nothing is let through because it does not look dangerous. A log line keeps those keys whose
values are ids, codes, numbers and times, each of the form that such a value has; free text goes,
with the names of the keys that it stood under. What remains is looked through once more for
secrets that are known, and for what has a secret's form.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

MARK = "[redacted]"
_SHORTEST = 6
"""Of a known secret: shorter words stand in harmless places too."""
_FORMS = (
    re.compile(r"(?<=://)[^/\s@\"']+@"),  # a URL's user and password
    re.compile(r"\banyon_(?=[a-z_-]*[A-Z0-9])[A-Za-z0-9_-]{12,}"),  # a token; no metric's name
    re.compile(r"(?i)\bbearer\s+\S+"),
    re.compile(r"\b(?:sk|rk|pk)-[A-Za-z0-9_-]{12,}"),
    re.compile(r"\bgh[pousr]_[A-Za-z0-9]{12,}|\bgithub_pat_[A-Za-z0-9_]{12,}"),
    re.compile(r"\bglpat-[A-Za-z0-9_-]{12,}|\bxox[abprs]-[A-Za-z0-9-]{10,}"),
    re.compile(r"\bAIza[A-Za-z0-9_-]{20,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|\bya29\.[A-Za-z0-9_-]+"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"),
    re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)", re.DOTALL),
)
_SECRET_NAME = re.compile(r"(?i)key|token|secret|passw|credential|auth")

_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_CODE = r"[a-z][a-z0-9_]{0,60}"
_EVENT = r"[a-z_]+(?:\.[a-z_]+)+"
_LOG_KEYS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(form)
    for name, form in {
        "timestamp": r"[0-9T:.Z+-]{10,40}",
        "level": r"[a-z]{1,10}",
        "logger": r"[A-Za-z0-9_.]{1,80}",
        "request_id": r"[A-Za-z0-9._-]{1,64}",
        "project": _ID,
        "process": _ID,
        "attempt": _ID,
        "task": _ID,
        "checkpoint": r"[0-9]{8}T?[0-9A-Za-z_.-]{0,60}",
        "code": _CODE,
        "loop": _CODE,
        "engine": r"[a-z]{1,20}",
        "method": r"[A-Z]{1,10}",
        "route": r"[a-z0-9/_.{}:-]{1,200}",
    }.items()
}
_NUMBERS = frozenset(
    {"status", "milliseconds", "count", "seconds", "files", "bytes", "port", "pid", "size_bytes"}
)
_FRAME = re.compile(r'\s*File "[^"]*?((?:anyon|site-packages|lib)/[^"\n]+)", (line \d+), in (\S+)')
_RAISED = re.compile(r"^([A-Za-z_][A-Za-z0-9_.]*(?:Error|Exception|Interrupt|Exit|Group))\b")


class Redactor:
    """Takes known secrets, and what has a secret's form, out of texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = sorted(
            {one for one in secrets if len(one) >= _SHORTEST}, key=len, reverse=True
        )

    def text(self, text: str) -> str:
        """Return *text* without them."""
        for secret in self._secrets:
            text = text.replace(secret, MARK)
        for form in _FORMS:
            text = form.sub(MARK, text)
        return text

    def value(self, value: Any) -> Any:
        """Return plain data in which every text is so treated."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value if isinstance(value, (int, float, bool, type(None))) else self.text(str(value))


def secrets_of(environment: Mapping[str, str]) -> Iterable[str]:
    """Return the values of variables whose names speak of secrets."""
    return [value for name, value in environment.items() if _SECRET_NAME.search(name)]


def shown_setting(name: str, value: object) -> object:
    """Return a setting as it may be shown: of one whose name speaks of secrets, whether it is set."""
    if isinstance(value, str) and value and _SECRET_NAME.search(name):
        return MARK
    if isinstance(value, str) and "://" in value:
        return value.split("?")[0].split("#")[0]  # queries carry passwords and keys
    return value


def log_line(line: str) -> dict[str, Any] | None:
    """Return what may be shown of a line of the kept log; None for what is no such line."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    kept: dict[str, Any] = {}
    left_out = []
    for key, value in found.items():
        if key == "exception" and isinstance(value, str):
            kept[key] = frames(value)
        elif key == "event" and isinstance(value, str):
            kept[key] = value if re.fullmatch(_EVENT, value) else "(not an event of ours)"
        elif (key in _NUMBERS and isinstance(value, (int, float))) or _is_kept(key, value):
            kept[key] = value
        else:
            left_out.append(key if re.fullmatch(_CODE, key) else MARK)
    return kept | {"left_out": left_out} if left_out else kept


def _is_kept(key: str, value: object) -> bool:
    form = _LOG_KEYS.get(key)
    return form is not None and isinstance(value, str) and form.fullmatch(value) is not None


def frames(trace: str) -> list[str]:
    """Return a traceback's places and the kinds of its errors, without their words and sources."""
    shown = []
    for line in trace.splitlines():
        place, raised = _FRAME.match(line), _RAISED.match(line.strip(" |+-"))
        if place is not None:
            shown.append(f"{place[1]} {place[2]} {place[3]}")
        elif raised is not None:
            shown.append(raised[1])
    return shown
