"""What scores are read against: exact numbers of a family's definition, what known strategies earn, and bounds trained
with PPO.

Exact numbers are computed as they are listed. The others are data of the package, ``zoo/references/<family>.json``:
what took long to compute is written by ``scripts/references``, trained bounds by ``scripts/train-references``, which
names every run and how it scored. No adaptation at all is k = 0 of the learner itself and needs no entry here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from innerloop_server.domain import Reference, ReturnUnit
from innerloop_server.evaluation.references import navigation
from innerloop_server.evaluation.references.bandits import bandit_references
from innerloop_server.evaluation.references.gridnavi import gridnavi_references
from innerloop_server.evaluation.references.minigrid_goal import minigrid_goal_references
from innerloop_server.evaluation.references.tabular_mdps import tabular_mdp_references
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.visible import VisibleFamily

ZOO = resources.files("innerloop_server.zoo") / "references"

EXACT: Mapping[str, Callable[[Family], tuple[Reference, ...]]] = {
    "bernoulli-bandit": bandit_references,
    "gridnavi": gridnavi_references,
    "minigrid-goal": minigrid_goal_references,
    "tabular-mdp": tabular_mdp_references,
    "point-robot-dense": navigation.point_robot_dense,
    "point-robot-sparse": navigation.point_robot_sparse,
    "point-maze": navigation.point_maze,
}
"""A family's own name, without options -> what is known of it exactly, and at once, beside ``Family.references``."""


def manifest(family: str, zoo: Traversable = ZOO) -> dict[str, Any] | None:
    """The manifest of a family's stored references, measured or trained; ``None`` where there is none."""
    file = zoo / f"{family}.json"
    if not file.is_file():
        return None
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return values


def references(family: Family, zoo: Traversable = ZOO) -> tuple[Reference, ...]:
    """The references of a family: exact ones, then measured ones, then trained ones. None stands in for one of its name
    that comes before it.

    Args:
        family: whose.
        zoo: the folder of manifests.
    """
    if isinstance(family, VisibleFamily):
        family = family.hidden  # the same tasks, for who is told and for who is not
    base, _, _ = family.name.partition(".")
    known = EXACT.get(base)
    exact = (*family.references, *(known(family) if known else ()))
    found = manifest(family.name, zoo)
    stored = {} if found is None else found["references"]
    trained_last = sorted(stored.items(), key=lambda item: "weights" in item[1])
    taken: dict[str, Reference] = {}
    for reference in (*exact, *(_read(name, entry) for name, entry in trained_last)):
        taken.setdefault(reference.name, reference)
    return tuple(taken.values())


def _read(name: str, entry: Mapping[str, Any]) -> Reference:
    unit = ReturnUnit(entry.get("unit", ReturnUnit.EPISODE))
    return Reference(name, float(entry["value"]), entry["source"], unit)
