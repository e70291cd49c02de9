"""The id of the request that is being worked on: in every log line, on what it started, in its answer.

It is kept in the context, which tasks and threads that a request starts take along: so what goes
on after the answer (an attempt's chain, say) is still found by the request that asked for it.
"""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

HEADER = "X-Request-ID"
VARIABLE = "ANYON_REQUEST_ID"
"""What a process finds the id in."""
_KEY = "request_id"
_FORM = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


def is_request_id(text: str) -> bool:
    """Say whether *text* may be a request's id: 1 to 64 letters, digits and ``.`` ``_`` ``-`` within."""
    return _FORM.fullmatch(text) is not None


def request_id_of(given: str | None) -> str:
    """Return what the caller has *given* if it is well-formed, else a new id."""
    return given if given is not None and is_request_id(given) else uuid.uuid4().hex


def current_request_id() -> str | None:
    """Return the id of the request that is being worked on, None for the server's own work."""
    found = structlog.contextvars.get_contextvars().get(_KEY)
    return found if isinstance(found, str) else None


@contextmanager
def requested(request_id: str) -> Iterator[None]:
    """Work on the request of this id inside the block."""
    with structlog.contextvars.bound_contextvars(**{_KEY: request_id}):
        yield
