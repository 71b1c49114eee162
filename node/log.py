"""Structured logs to stderr: text for people, JSON lines for collectors."""

from __future__ import annotations

import logging
import sys

import structlog

from ledger.errors import InvalidInputError
from node.config import LogSettings

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logging(settings: LogSettings) -> None:
    """Set the process's log format and level. Raises InvalidInputError for unknown ones."""
    if settings.level not in _LEVELS:
        raise InvalidInputError("log.level", expected=", ".join(_LEVELS), got=settings.level)
    if settings.format not in ("text", "json"):
        raise InvalidInputError("log.format", expected="text, json", got=settings.format)
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
