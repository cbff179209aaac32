"""Task generators by name. Imports no torch: the gateway checks names, and proposes tasks from checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from innerloop_server.domain import Split
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.generators.generator import Proposer
from innerloop_server.tasks.generators.grid import GridGenerator
from innerloop_server.tasks.generators.replay import ReplayGenerator
from innerloop_server.tasks.generators.uniform import UniformGenerator
from innerloop_server.training.adversary_generator import AdversaryGenerator
from innerloop_server.training.goal_gan_generator import GoalGanGenerator

UNIFORM = "uniform"
PAIRED = "paired"


class Make(Protocol):
    """How a generator is made."""

    def __call__(self, family: Family, seed: int, split: Split = ...) -> Proposer:
        """With its settings as they are by default."""
        ...


@dataclass(frozen=True)
class Kind:
    """A kind of generator."""

    make: Make
    listens: bool
    """What it proposes depends on how tasks went: without a training it has nothing to say."""


KINDS: Mapping[str, Kind] = {
    UNIFORM: Kind(UniformGenerator, listens=False),
    "grid": Kind(GridGenerator, listens=False),
    "replay": Kind(ReplayGenerator, listens=True),
    "goal-gan": Kind(GoalGanGenerator, listens=True),
    PAIRED: Kind(AdversaryGenerator, listens=True),
}
"""By name. ``paired`` is its adversary, which only proposes: the loop around it is ``paired.update``."""


def kind(name: str, field: str = "generator") -> Kind:
    """The kind of that name; empty: uniform.

    Raises:
        InvalidField: there is none.
    """
    try:
        return KINDS[name or UNIFORM]
    except KeyError:
        raise InvalidField(field, f"{name[:80]!r} is unknown; use one of {', '.join(KINDS)}") from None


def build(name: str, family: Family, seed: int) -> Proposer:
    """The generator of a training.

    Raises:
        InvalidField: no such kind, or it cannot make up tasks of this family.
    """
    generator = kind(name).make(family, seed)
    generator.initial()  # says what is wrong with the family
    return generator
