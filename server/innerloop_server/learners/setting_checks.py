"""Reading the settings of a method from JSON values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from innerloop_server.errors import InvalidField

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SettingsT = TypeVar("SettingsT", bound="DataclassInstance")

MOST_LAYERS = 4
WIDEST_LAYER = 1_024
"""Of every network: sessions hold adaptation states by the thousand."""
LARGEST_BATCH = 10_000_000
"""Steps of episodes that an optimiser step may read: memory is finite."""
WIDEST_LOG_STD = 20.0
LARGEST_SCALE = 1_000.0
"""Of a layer's first weights: beyond it no first update is finite."""


def read(kind: type[SettingsT], method: str, values: Mapping[str, Any]) -> SettingsT:
    """Settings from JSON values; those left out take their defaults.

    Args:
        kind: a dataclass, every field of which has a default.
        method: whose settings they are.
        values: name -> value.

    Raises:
        InvalidField: unknown, of a wrong type, or out of its range; names ``settings.<field>``.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    converted: dict[str, Any] = {}
    for name, value in values.items():
        require(name in defaults, name, f"unknown; {method} has {', '.join(defaults)}")
        converted[name] = convert(name, value, defaults[name])
    return kind(**converted)


def convert(name: str, value: Any, default: Any) -> Any:
    """``value`` in the type of ``default``; JSON writes 1.0 as 1, so an integer is a float too.

    Raises:
        InvalidField: it is of another type; names ``settings.<name>``.
    """
    if isinstance(default, tuple):
        fits = isinstance(value, (list, tuple)) and all(type(n) is int for n in value)
        require(fits, name, "give a list of integers")
        return tuple(value)
    if isinstance(default, float):
        require(type(value) in (int, float) and _is_finite(value), name, "give a finite number")
        return float(value)
    kinds = {bool: "true or false", int: "an integer", str: "a string"}
    require(type(value) is type(default), name, f"give {kinds[type(default)]}")
    return value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float comes near
        return False


def require(holds: bool, name: str, advice: str) -> None:
    """Raises:
    InvalidField: it does not hold; names ``settings.<name>``.
    """
    if not holds:
        raise InvalidField(f"settings.{name}", advice)


def require_widths(settings: DataclassInstance, *names: str) -> None:
    """Check settings that hold the widths of a network's layers.

    Raises:
        InvalidField: too many layers, or one too wide or empty; names ``settings.<name>``.
    """
    for name in names:
        widths = getattr(settings, name)
        fits = len(widths) <= MOST_LAYERS and all(0 < n <= WIDEST_LAYER for n in widths)
        require(fits, name, f"give at most {MOST_LAYERS} widths of 1 to {WIDEST_LAYER}")


def require_start(settings: Any) -> None:
    """Check what says how a policy starts out, of settings that do.

    Raises:
        InvalidField: names ``settings.initial_log_std`` or ``settings.last_layer_scale``.
    """
    log_std, scale = getattr(settings, "initial_log_std", 0.0), getattr(settings, "last_layer_scale", 1.0)
    fits = abs(log_std) <= WIDEST_LOG_STD
    require(fits, "initial_log_std", f"give a number from {-WIDEST_LOG_STD:.0f} to {WIDEST_LOG_STD:.0f}")
    require(0 < scale <= LARGEST_SCALE, "last_layer_scale", f"give a positive number of at most {LARGEST_SCALE:.0f}")


def to_json(settings: DataclassInstance) -> dict[str, Any]:
    """Every setting as JSON values, in the order of their declaration; :func:`read` takes them back."""
    values = dataclasses.asdict(settings)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
