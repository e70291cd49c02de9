"""Identifiers: lower-case hyphenated UUIDs, the form they have on the wire."""

import uuid
from typing import NewType

UserId = NewType("UserId", str)
ProjectId = NewType("ProjectId", str)
TaskId = NewType("TaskId", str)
AttemptId = NewType("AttemptId", str)
ProcessId = NewType("ProcessId", str)
TokenId = NewType("TokenId", str)
LeaseId = NewType("LeaseId", str)
PictureId = NewType("PictureId", str)
TagId = NewType("TagId", str)

LOCAL_USER = UserId("00000000-0000-4000-8000-000000000001")
"""The one user of a server that asks for no login."""


def new_id() -> str:
    """Return a new random identifier (UUID version 4)."""
    return str(uuid.uuid4())


def is_id(text: str) -> bool:
    """Say whether *text* is an identifier in exactly the form that this module writes."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
