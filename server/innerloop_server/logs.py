"""Logging, set up once at the top of a process. Everybody else calls ``structlog.get_logger()``."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import Processor

FORMATS = ("console", "json")


def configure(log_format: str = "console", *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send structlog's events and those of the standard library (grpc, sqlalchemy) to one stream in one format.

    Args:
        log_format: ``console``, for people; ``json``, one object a line, for programs.
        level: events below it are dropped.
        stream: where to; standard error when left out.

    Raises:
        ValueError: another format.
    """
    if log_format not in FORMATS:
        raise ValueError(f"log format {log_format!r} is unknown; use one of {', '.join(FORMATS)}")
    target = sys.stderr if stream is None else stream
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [structlog.dev.ConsoleRenderer(colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback)]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=target),
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
