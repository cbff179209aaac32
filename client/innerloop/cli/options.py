"""Kinds of options that several commands have."""

from __future__ import annotations

import click

POSITIVE = click.IntRange(min=1)


def zero_if_left_out(context: click.Context, option: click.Parameter, value: int | None) -> int:  # noqa: ARG001 - click's signature
    """The client's word for "as the protocol has it" is 0, which nobody may type as if it were a number."""
    return value or 0
