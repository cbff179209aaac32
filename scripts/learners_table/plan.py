"""The plan of the table as values: cells, and what each is scored on. Read from ``plan.toml``."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from innerloop_server.domain import Adaptation, LearnerSpec, Split
from innerloop_server.evaluation.plan import Plan, make_plan
from innerloop_server.learners import registry as methods
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import Registry
from innerloop_server.tasks.visible import shown_name
from innerloop_server.training.requests import TrainingRequest
from innerloop_server.training.requests import plan as training_of

FILE = Path(__file__).with_name("plan.toml")


@dataclass(frozen=True)
class Entry:
    """A row of the table: a method with settings."""

    label: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    episodes_per_step: int = 1
    """Of the task, that a session's step consumes."""
    steps: int = 0
    adapts: bool = True

    def evaluation(self, family: Family, changed: Mapping[str, Any]) -> Plan:
        """What it is scored on.

        Args:
            family: the one that its learner is bound to.
            changed: over the family's fixed test protocol.
        """
        return make_plan(
            family,
            Split.TEST,
            remembers=methods.get(self.method).adaptation is Adaptation.MEMORY,
            guard=None if self.adapts else False,
            steps=self.steps,
            episodes_per_step=self.episodes_per_step,
            **changed,
        )

    @property
    def consumed(self) -> tuple[int, ...]:
        """Episodes of the task behind the policies that are scored, k = 0 .. steps."""
        return tuple(k * self.episodes_per_step for k in range(self.steps + 1))


@dataclass(frozen=True)
class Cell:
    """One training: a row of the table with a seed, on a family."""

    family: str
    entry: Entry
    seed: int
    updates: int = 0
    """0: as the settings say."""

    @property
    def folder(self) -> Path:
        """Of its run under that of all runs, and of what is kept of it."""
        return Path(self.family) / self.entry.label / f"seed-{self.seed}"

    @property
    def bound_to(self) -> str:
        """Name of the family that its learner is bound to."""
        return shown_name(self.family) if methods.get(self.entry.method).told else self.family

    def training(self, out: Path) -> list[str]:
        """Arguments of ``scripts/train`` that train it, or go on with it, under ``out``."""
        words = [self.family, "--method", self.entry.method, "--seed", str(self.seed)]
        if self.updates:
            words += ["--updates", str(self.updates)]
        for name, value in self.entry.settings.items():
            words += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
        return [*words, "--out", str(out / self.folder)]

    def command(self, out: Path) -> str:
        """What to type to train it."""
        return shlex.join(["scripts/train", *self.training(out)])

    def spec(self, registry: Registry) -> LearnerSpec:
        """The learner that :meth:`command` trains, as things stand."""
        method, settings = self.entry.method, self.entry.settings
        request = TrainingRequest(self.family, method, settings=settings, seed=self.seed, updates=self.updates)
        return training_of(request, registry.get(self.bound_to)).spec


@dataclass(frozen=True)
class Table:
    """The whole plan."""

    seeds: tuple[int, ...]
    episodes: tuple[int, ...]
    """Columns: episodes of the task consumed."""
    entries: Mapping[str, tuple[Entry, ...]]
    """Family -> its rows."""
    evaluation: Mapping[str, Mapping[str, Any]]
    """Family -> what differs from its fixed test protocol."""
    updates: Mapping[str, int] = field(default_factory=dict)
    """Label -> updates, where not as the settings say."""

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Seed by seed, and family by family within one: whatever is done first compares all methods."""
        return tuple(
            Cell(family, entry, seed, self.updates.get(entry.label, 0))
            for seed in self.seeds
            for family, entries in self.entries.items()
            for entry in entries
        )

    def plan(self, cell: Cell, registry: Registry) -> Plan:
        """What a cell is scored on; the tasks are the same for all cells of a family."""
        return cell.entry.evaluation(registry.get(cell.bound_to), self.evaluation[cell.family])


def read(*, quick: bool = False, file: Path = FILE) -> Table:
    """The plan, or the quick one.

    Raises:
        KeyError: a family names a label that there is not.
    """
    values = tomllib.loads(file.read_text(encoding="utf-8"))
    rows = {label: Entry(label, **row) for label, row in values["methods"].items()}
    families = values["families"]
    table = Table(
        seeds=tuple(values["seeds"]),
        episodes=tuple(values["episodes"]),
        entries={name: tuple(rows[label] for label in one["methods"]) for name, one in families.items()},
        evaluation={name: one.get("evaluation", {}) for name, one in families.items()},
    )
    if not quick:
        return table
    less = values["quick"]
    return replace(
        table,
        seeds=tuple(less["seeds"]),
        entries={name: tuple(rows[label] for label in less["updates"]) for name in less["families"]},
        evaluation=dict.fromkeys(less["families"], less["evaluation"]),
        updates=less["updates"],
    )
