"""Logging in both formats, our own events and the standard library's."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from innerloop_server import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_json_is_one_object_a_line() -> None:
    stream = io.StringIO()
    logs.configure("json", stream=stream)
    structlog.get_logger().info("request", code="OK", ms=1.5)
    structlog.get_logger().debug("hidden")
    logging.getLogger("sqlalchemy").warning("slow %s", "query")
    ours, theirs = map(json.loads, stream.getvalue().splitlines())
    assert ours.pop("timestamp").endswith("Z")
    assert ours == {"event": "request", "code": "OK", "ms": 1.5, "level": "info"}
    assert (theirs["event"], theirs["logger"], theirs["level"]) == ("slow query", "sqlalchemy", "warning")


@pytest.mark.parametrize("log_format", logs.FORMATS)
def test_a_traceback_is_in_the_log(log_format: str) -> None:
    stream = io.StringIO()
    logs.configure(log_format, stream=stream)
    try:
        raise KeyError("why")
    except KeyError as error:
        structlog.get_logger().error("incident", incident="abc", exc_info=error)
    assert "KeyError" in stream.getvalue()
    assert "test_logs.py" in stream.getvalue()
    if log_format == "json":
        assert len(stream.getvalue().splitlines()) == 1


def test_console_has_no_colours_off_a_terminal() -> None:
    stream = io.StringIO()
    logs.configure("console", stream=stream)
    structlog.get_logger().info("request", code="OK")
    assert "\x1b" not in stream.getvalue()
    assert "code=OK" in stream.getvalue()


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="console, json"):
        logs.configure("xml")
