"""Families for people: a table of all, the whole story of one."""

from __future__ import annotations

from collections.abc import Container, Sequence

import click
import numpy as np

from innerloop._core.names import short
from innerloop._core.tasks import ParameterLike
from innerloop.arrays import Array, Box, Discrete, Space
from innerloop.cli.output import Output, hanging
from innerloop.types import Family, Reference

COLUMNS = ("family", "sees", "does", "steps", "trial", "references", "state")
SHOWN = 3
"""References in a table's cell."""
LABELS = 12
"""Columns of the words at the left of a description."""


def overview(out: Output, found: Sequence[Family], learned: Container[str]) -> None:
    """A table of all families, and below it why some cannot be used.

    Args:
        out: where to.
        found: the families.
        learned: resource names of those that have a learner.
    """
    rows = [
        (
            short(f.name),
            brief(f.observation_space),
            brief(f.action_space),
            f.horizon or None,
            f.episodes_per_trial or None,
            _references(f.references),
            _state(f, learned),
        )
        for f in found
    ]
    out.table(COLUMNS, rows)
    out.note("innerloop families NAME tells the whole story; innerloop train NAME makes a learner where there is none")
    for family in found:
        if family.broken_reason:
            out.say(hanging(f"{short(family.name)} is broken: ", family.broken_reason, 2))


def _state(family: Family, learned: Container[str]) -> str:
    if family.broken_reason:
        return "broken"
    if family.missing_extra:
        return f"needs [{family.missing_extra}]"
    return "ready" if family.name in learned else "no learner yet"


def describe(family: Family) -> str:
    """All there is to say about one family."""
    lines = [(f"{short(family.name)}: {family.title}" if family.title else short(family.name)), ""]
    if family.broken_reason:
        return "\n".join([*lines, _line("state", f"broken: {family.broken_reason}")])
    trial = f", {family.episodes_per_trial} episodes a trial" if family.episodes_per_trial > 1 else ""
    told = [
        ("sees", _space(family.observation_space)),
        ("does", _space(family.action_space)),
        ("episode", f"{_count(family.horizon, 'step')}{trial}, discount {family.discount:g}"),
        *((("feedback", _feedback(family)),) if family.supervision else ()),
        *(("hidden", f"{name}: {_space(space)}") for name, space in family.parameter_space.items()),
        *(("option", f"{o.name} = {o.value}{_default(o.value, o.default_value)}") for o in family.options),
        ("tasks", "few: train, validation and test share them" if family.splits_share_tasks else ""),
        ("simulators", ", ".join(family.simulators)),
        *(("reference", f"{r.name} {_number(r)} ({r.source})") for r in family.references),
        ("defined", _defined(family)),
        ("state", f"needs {family.missing_extra_command}" if family.missing_extra else "ready"),
    ]
    return "\n".join([*lines, hanging("", family.description, 0), "", *(_line(*pair) for pair in told if pair[1])])


def parameter_of(text: str) -> tuple[str, ParameterLike]:
    """What ``--parameter`` says: ``g=2:20`` for numbers between, ``map=4`` for 0 to 3.

    Raises:
        click.UsageError: it says something else.
    """
    name, equals, values = text.partition("=")
    low, colon, high = values.partition(":")
    try:
        if name and equals:
            return name, (float(low), float(high)) if colon else int(low)
    except ValueError:
        pass
    raise click.UsageError(f"--parameter {text}: write NAME=LOW:HIGH, or NAME=N for 0 to N - 1")


def brief(space: Space | None) -> str:
    """A space in a table's cell: ``17 numbers``, ``12x12x3``, ``1 of 5``."""
    if space is None:
        return ""
    if isinstance(space, Discrete):
        return f"1 of {space.n}"
    return _count(space.size, "number") if len(space.shape) < 2 else "x".join(map(str, space.shape))


def _space(space: Space | None) -> str:
    if not isinstance(space, Box):
        return brief(space)
    low, high = _bounds(space.low), _bounds(space.high)
    unbounded = not (np.isfinite(space.low).any() or np.isfinite(space.high).any())
    return brief(space) + ("" if unbounded else f" from {low} to {high}")


def _bounds(side: Array) -> str:
    values = np.asarray(side).ravel()
    if np.all(values == values[0]):
        return f"{values[0]:.4g}"
    shown = ", ".join(f"{value:.4g}" for value in values[:8])
    return f"({shown}{', ...' if len(values) > 8 else ''})"


def _references(references: Sequence[Reference]) -> str:
    """The first ones, the unit said once where they share one."""
    shown = references[:SHOWN]
    trials = [r.unit == "trial" for r in shown]
    if shown and all(trials):
        text = ", ".join(f"{r.name} {r.value:.2f}" for r in shown) + " a trial"
    else:
        text = ", ".join(f"{r.name} {_number(r)}" for r in shown)
    return text if len(references) <= SHOWN else f"{text}; {len(references) - SHOWN} more"


def _number(reference: Reference) -> str:
    return f"{reference.value:.2f}{' a trial' if reference.unit == 'trial' else ''}"


def _feedback(family: Family) -> str:
    what = "the right label" if family.supervision == "classification" else "the target"
    return f"{what}, {_count(family.feedback_size, 'number')} ({family.supervision})"


def _default(value: str, default: str) -> str:
    return "" if value == default else f" (default {default})"


def _defined(family: Family) -> str:
    if (d := family.definition) is None:
        return ""
    when = f" on {d.create_time:%Y-%m-%d}" if d.create_time else ""
    return f"by {d.owner}{when}: {d.env_id}, parameters as {d.apply}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _line(label: str, text: str) -> str:
    return hanging(f"{label:{LABELS}}", text, LABELS)
