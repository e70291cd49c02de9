"""The one tree of errors.

    AnyonError
    ├── InvalidInputError      the caller's data is wrong                  422
    │   ├── UnfitFileError     a file of a kind that is not taken          400
    │   └── TooLargeError      more bytes than are taken                   413
    ├── NotFoundError          unknown, or another tenant's                404
    ├── ConflictError          the thing is in a state that forbids this   409
    ├── NotAllowedError        the caller may not                          403
    ├── UnauthenticatedError   the caller is not known                     401
    ├── OverLimitError         a quota or a budget is used up              429
    ├── UnavailableError       a part Anyon needs does not answer          503
    │   ├── EngineUnavailableError
    │   └── DeadlineExceededError                                          504
    ├── MissingError           something must be installed or set first    424
    └── EngineFailedError      an engine refused or failed                 502

Each error carries a stable ``code`` (a constant, for programs), a message (what
happened) and a ``hint`` (what to do). Drivers translate foreign errors at their border.
"""

from typing import ClassVar


class AnyonError(Exception):
    """What happened, a stable code for programs and a hint for people."""

    default_code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, code: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint


class InvalidInputError(AnyonError):
    """The caller's data cannot be accepted; nothing was changed."""

    default_code = "invalid_input"
    status = 422


class UnfitFileError(InvalidInputError):
    """A file is of a kind that is not taken, or is not what its name says."""

    default_code = "file_unfit"
    status = 400


class TooLargeError(InvalidInputError):
    """What was sent has more bytes than are taken."""

    default_code = "too_large"
    status = 413


class NotFoundError(AnyonError):
    """There is no such thing, or it is not the caller's to know of."""

    default_code = "not_found"
    status = 404


class ConflictError(AnyonError):
    """The thing is in a state in which this cannot be done."""

    default_code = "conflict"
    status = 409


class NotAllowedError(AnyonError):
    """The caller is known and may not do this."""

    default_code = "not_allowed"
    status = 403


class UnauthenticatedError(AnyonError):
    """The caller is not known."""

    default_code = "unauthenticated"
    status = 401


class OverLimitError(AnyonError):
    """A quota or a budget is used up."""

    default_code = "over_limit"
    status = 429


class MissingError(AnyonError):
    """A program, a key or an image that is needed is not there; the hint says how to get it."""

    default_code = "missing"
    status = 424


class UnavailableError(AnyonError):
    """A part that Anyon needs does not answer; the same call may succeed later."""

    default_code = "unavailable"
    status = 503


class EngineUnavailableError(UnavailableError):
    """The engine cannot be reached."""

    default_code = "engine_unavailable"


class DeadlineExceededError(UnavailableError):
    """An answer did not come within the time allowed for it."""

    default_code = "deadline_exceeded"
    status = 504


class EngineFailedError(AnyonError):
    """The engine was reached and refused or failed."""

    default_code = "engine_failed"
    status = 502
