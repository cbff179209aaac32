"""Times, numbers and JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from google.protobuf import duration_pb2, json_format, struct_pb2, timestamp_pb2

from innerloop_server.errors import InvalidField

LARGEST_SEED = 2**63 - 1
"""Seeds are kept as signed 64-bit integers."""


def timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    """Unix seconds as a message, to the microsecond."""
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    return timestamp_pb2.Timestamp(seconds=whole, nanos=micros * 1_000)


def optional_timestamp(seconds: float | None) -> timestamp_pb2.Timestamp | None:
    """As :func:`timestamp`; ``None`` stays unset."""
    return None if seconds is None else timestamp(seconds)


def duration(seconds: float) -> duration_pb2.Duration:
    """Seconds as a message, to the microsecond."""
    micros = round(seconds * 1_000_000)
    message = duration_pb2.Duration()
    message.FromMicroseconds(micros)
    return message


def seconds_from_pb(message: duration_pb2.Duration, field: str, low: float, high: float) -> float:
    """A duration in seconds.

    Raises:
        InvalidField: outside ``low`` to ``high`` seconds.
    """
    seconds = message.seconds + message.nanos / 1e9
    if not low <= seconds <= high:
        raise InvalidField(field, f"is {seconds:g} seconds; give {low:g} to {high:g}")
    return seconds


def whole(value: int, field: str, low: int, high: int) -> int:
    """A count inside its range.

    Raises:
        InvalidField: outside ``low`` to ``high``.
    """
    if not low <= value <= high:
        raise InvalidField(field, f"is {value}; give {low} to {high}")
    return value


def finite(value: float, field: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number inside its range.

    Raises:
        InvalidField: NaN, infinite, or outside ``low`` to ``high``.
    """
    if not math.isfinite(value):
        raise InvalidField(field, f"is {value}; give a finite number")
    if not low <= value <= high:
        raise InvalidField(field, f"is {value:g}; give {low:g} to {high:g}")
    return value


def seed(value: int, field: str) -> int:
    """A seed.

    Raises:
        InvalidField: 2^63 or more.
    """
    if value > LARGEST_SEED:
        raise InvalidField(field, f"is {value}; give 0 to 2^63 - 1")
    return value


def struct_to_pb(values: Mapping[str, Any]) -> struct_pb2.Struct:
    """JSON values as a message. Its numbers are doubles: integers past 2^53 travel as text."""
    message = struct_pb2.Struct()
    message.update(_json(values))
    return message


def struct_from_pb(message: struct_pb2.Struct, field: str) -> dict[str, Any]:
    """A message as JSON values. A double cannot say whether it was an integer; whole numbers come out as ``int``.

    Raises:
        InvalidField: a number is NaN or infinite, or a value has no kind.
    """
    try:
        values = json_format.MessageToDict(message)
    except (ValueError, TypeError) as error:
        raise InvalidField(field, "holds a value that is no JSON: NaN, an infinity, or nothing at all") from error
    checked: dict[str, Any] = _whole_numbers(values)
    return checked


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
        return str(value)
    return value


def _whole_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    return value
