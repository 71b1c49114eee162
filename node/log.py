"""Structured logs to stderr: text for people, JSON lines for collectors."""

from __future__ import annotations

import contextlib
import logging
import sys

import structlog

from ledger.errors import InvalidInputError
from node.config import LogSettings

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class _Stderr:
    """Standard error that never raises: a full disk under the log file must not end a node that
    is about to say that the disk is full."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            return sys.stderr.write(text)
        return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def configure_logging(settings: LogSettings) -> None:
    """Set the process's log format and level. Raises InvalidInputError for unknown ones."""
    if settings.level not in _LEVELS:
        raise InvalidInputError("log.level", expected=", ".join(_LEVELS), got=settings.level)
    if settings.format not in ("text", "json"):
        raise InvalidInputError("log.format", expected="text, json", got=settings.format)
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # never local values: keys
        )
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        # write and flush are all that it calls
        logger_factory=structlog.PrintLoggerFactory(_Stderr()),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
