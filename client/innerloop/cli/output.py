"""Tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from innerloop.arrays import Box, Discrete, space_to_json
from innerloop.policy import Policy

PIPE_WIDTH = 160
"""Columns of a table that goes into a pipe, where nobody knows the width."""


@dataclasses.dataclass(frozen=True)
class Output:
    """Where a command's words go."""

    as_json: bool
    terminal: bool

    @property
    def live(self) -> bool:
        """Whether to draw things that move."""
        return self.terminal and not self.as_json

    @property
    def console(self) -> Console:
        """Standard output."""
        return Console(width=None if self.terminal else PIPE_WIDTH, highlight=False)

    def value(self, value: Any) -> None:
        """One JSON value, or one of a number of JSON lines."""
        click.echo(json.dumps(to_json(value), sort_keys=True, allow_nan=False))

    def say(self, text: str) -> None:
        """A line for people; programs do not get it."""
        if not self.as_json:
            click.echo(text)

    def note(self, text: str) -> None:
        """A line on stderr."""
        click.echo(text, err=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
        """A table: numbers to the right, everything else to the left."""
        table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
        body = [[_cell(value) for value in row] for row in rows]
        for i, column in enumerate(columns):
            numeric = bool(body) and all(_is_number(row[i]) for row in body)
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in body:
            table.add_row(*row)
        self.console.print(table)


def to_json(value: Any) -> Any:
    """A value of ``innerloop.types`` as JSON values. Infinite numbers, which JSON has not, as text."""
    match value:
        case Box() | Discrete():
            return space_to_json(value)
        case Policy():
            return {"hash": value.header.hash, "steps": value.header.steps}
        case datetime():
            return value.isoformat()
        case np.ndarray() | np.generic():
            return to_json(value.tolist())
        case float():
            return value if math.isfinite(value) else str(value)
        case list() | tuple():
            return [to_json(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "items"):
        return {str(key): to_json(item) for key, item in value.items()}
    return value


def parameters(values: Any) -> str:
    """A task's parameters in one line: ``goal=0.3,-0.2``."""
    return " ".join(f"{name}={_numbers(value)}" for name, value in values.items())


def _numbers(value: Any) -> str:
    return ",".join(f"{x:.4g}" for x in np.asarray(value, float).ravel())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.4f}"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return str(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == ""
    return True
