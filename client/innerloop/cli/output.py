"""Tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from innerloop.arrays import Box, Discrete, space_to_json
from innerloop.policy import Policy

PIPE_WIDTH = 10_000
"""Columns of a table that goes into a pipe: nothing is wrapped there, so that a row is a line."""


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
        return Console(highlight=False) if self.terminal else _console(PIPE_WIDTH)

    def value(self, value: Any) -> None:
        """One JSON value, or one of a number of JSON lines."""
        click.echo(json.dumps(to_json(value), sort_keys=True, allow_nan=False))

    def say(self, text: str) -> None:
        """A line for people; programs do not get it."""
        if not self.as_json:
            # print, not click.echo: it writes past what a live progress bar puts in the place of sys.stdout, into the
            # line of the bar
            print(wrapped(text))

    def note(self, text: str) -> None:
        """A line on stderr."""
        click.echo(wrapped(text, err=True), err=True)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str = "", droppable: Sequence[str] = ()
    ) -> None:
        """A table: numbers to the right, everything else to the left. Cells break between words, never inside one.

        Args:
            columns: their headers.
            rows: a value for each column.
            empty: what to say when there are no rows.
            droppable: columns that a narrow terminal does without, the least useful first.
        """
        body = [[_cell(value) for value in row] for row in rows]
        if not body and empty:
            self.say(empty)
            return
        width = self.console.width
        for dropped in range(len(droppable) + 1):
            shown = [i for i, column in enumerate(columns) if column not in droppable[:dropped]]
            table = _table([columns[i] for i in shown], [[row[i] for i in shown] for row in body])
            whole = _console(PIPE_WIDTH)
            least, best = Measurement.get(whole, whole.options, table)
            if best <= width:
                break
        # where even single words do not fit, the lines are for the terminal to break: an id is copied in one piece
        _console(max(width, least)).print(table)


def wrapped(text: str, *, err: bool = False) -> str:
    """Lines broken between words where they go to a terminal, as they are where they go elsewhere.

    Args:
        text: one or more lines.
        err: they go to stderr.
    """
    if not (sys.stderr if err else sys.stdout).isatty():
        return text
    width = shutil.get_terminal_size().columns
    lines = (textwrap.wrap(x, width, break_long_words=False, break_on_hyphens=False) or [""] for x in text.split("\n"))
    return "\n".join(part for line in lines for part in line)


def hanging(label: str, text: str, indent: int) -> str:
    """``label`` and ``text`` broken between words where they go to a terminal, lines after the first indented."""
    if not sys.stdout.isatty():
        return label + text
    width = shutil.get_terminal_size().columns
    return textwrap.fill(
        text,
        width,
        initial_indent=label,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


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


def _console(width: int) -> Console:
    return Console(width=width, height=25, highlight=False)  # rich heeds a width on a dumb terminal with a height alone


def _table(columns: Sequence[str], body: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        cells = [row[i] for row in body]
        numeric = bool(body) and all(_is_number(cell) for cell in cells)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=not any(" " in c for c in cells))
    for row in body:
        table.add_row(*map(escape, row))
    return table


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
