"""Logs: events are ``noun.past_verb`` with keys, one line each, on stderr; and kept in a file for a while."""

import logging
import os
import sys
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog

KEPT_LOG = Path("logs") / "server.log"
"""Where in the home a server's log is kept."""
_SHARED: tuple[structlog.typing.Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
)
_NOISY = ("uvicorn.access", "httpx", "httpcore", "websockets", "aiosqlite", "alembic")


def configure_logging(
    level: str = "info",
    form: str = "console",
    *,
    kept_in: Path | None = None,
    kept_bytes: int = 16 * 1024 * 1024,
) -> None:
    """Send all logs to stderr: *form* ``console`` for people, ``json`` one object a line.

    The last *kept_bytes* of them are in the file *kept_in* too (one before it has its older
    half), as JSON, for support. Control characters and newlines in values are escaped
    everywhere, so that no value forges a line.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.processors.KeyValueRenderer(
            key_order=["timestamp", "level", "event"], drop_missing=True
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,  # what nobody hears costs next to nothing
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(renderer))
    handlers: list[logging.Handler] = [handler]
    if kept_in is not None:
        handlers.append(_kept(kept_in, kept_bytes))
    root = logging.getLogger()
    for former in root.handlers[:]:
        if isinstance(former, _KeptHandler):
            former.close()
    root.handlers[:] = handlers
    root.setLevel(number)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(max(number, logging.WARNING))


def _formatter(*renderers: structlog.typing.Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            *renderers[:-1],
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            renderers[-1],
        ],
    )


class _KeptHandler(RotatingFileHandler):
    """A file of our own, readable for nobody else."""

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return TextIOWrapper(
            os.fdopen(os.open(self.baseFilename, flags, 0o600), "ab"),
            encoding="utf-8",
            errors="backslashreplace",
            write_through=True,
        )

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Lose a line that cannot be kept (the disk is full, say): stderr has had it already."""


def _kept(path: Path, kept_bytes: int) -> logging.Handler:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handler = _KeptHandler(path, maxBytes=max(1, kept_bytes // 2), backupCount=1)
    handler.setFormatter(_formatter(_name_logger, structlog.processors.JSONRenderer()))
    return handler


def _name_logger(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    record = event.get("_record")
    if isinstance(record, logging.LogRecord):
        event["logger"] = record.name
    return event
