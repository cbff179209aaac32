"""What can be chosen about a family, and how the choice is part of its name.

A family with other than default options is another family: ``bernoulli-bandit.arms-10.pulls-100``. The name says all
that a process needs to build it, fits every resource name, and needs no quotes in a shell.

>>> configured_name("bernoulli-bandit", {"arms": 5, "pulls": 10}, {"arms": 10, "pulls": 10})
'bernoulli-bandit.arms-10'
>>> split_name("metaworld-ml1.task-push-v3")
('metaworld-ml1', {'task': 'push-v3'})
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from innerloop_server.errors import InvalidField

Value = int | str

_OPTION = re.compile(r"([a-z][a-z0-9_]*)-([A-Za-z0-9][A-Za-z0-9_-]*)")


def configured_name(base: str, defaults: Mapping[str, Value], chosen: Mapping[str, Value]) -> str:
    """The name of the family ``base`` with ``chosen`` options: what differs from the defaults, in their order.

    Args:
        base: the family's own name.
        defaults: option -> default.
        chosen: option -> value, for every option.
    """
    differing = [f"{name}-{chosen[name]}" for name, default in defaults.items() if chosen[name] != default]
    return ".".join([base, *differing])


def split_name(name: str) -> tuple[str, dict[str, str]]:
    """(base, option -> its text) in a family's name.

    Raises:
        InvalidField: a part that is no option, or one that comes twice.
    """
    base, *parts = name.split(".")
    options: dict[str, str] = {}
    for part in parts:
        match = _OPTION.fullmatch(part)
        if match is None:
            raise InvalidField("family", f"{name!r}: {part!r} is no option; write one as in {_EXAMPLE}")
        if match[1] in options:
            raise InvalidField("family", f"{name!r}: option {match[1]} comes twice")
        options[match[1]] = match[2]
    return base, options


def read_options(base: str, defaults: Mapping[str, Value], texts: Mapping[str, str]) -> dict[str, Value]:
    """Every option's value: what the texts say, else the default.

    Args:
        base: the family's own name.
        defaults: option -> default; its type is the option's.
        texts: option -> text.

    Raises:
        InvalidField: an unknown option, or a text that is no number where one is wanted (``options.<name>``).
    """
    chosen = dict(defaults)
    for name, text in texts.items():
        if name not in defaults:
            known = f"{base} has {', '.join(defaults)}" if defaults else f"{base} has no options"
            raise InvalidField(f"options.{name}", f"unknown; {known}")
        if isinstance(defaults[name], int):
            if not text.isdecimal() or (len(text) > 1 and text.startswith("0")) or len(text) > 9:
                raise InvalidField(f"options.{name}", f"{text!r} is not a whole number")
            chosen[name] = int(text)
        else:
            chosen[name] = text
    return chosen


def check_range(option: str, value: int, least: int, most: int) -> None:
    """Refuse a number that an option does not take.

    Raises:
        InvalidField: it is less than ``least`` or more than ``most`` (``options.<option>``).
    """
    if not least <= value <= most:
        raise InvalidField(f"options.{option}", f"{value} is out of range; give {least} to {most}")


_EXAMPLE = "bernoulli-bandit.arms-10"
