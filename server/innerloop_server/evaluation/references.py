"""What scores are read against: exact numbers of a family's definition, and bounds trained with PPO.

Trained bounds are data of the package: ``zoo/references/<family>.json``, written by ``scripts/train-references``, names
every run and how it scored. No adaptation at all is k = 0 of the learner itself and needs no entry here.
"""

from __future__ import annotations

import json
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from innerloop_server.domain import Reference
from innerloop_server.tasks.family import Family

ZOO = resources.files("innerloop_server.zoo") / "references"


def manifest(family: str, zoo: Traversable = ZOO) -> dict[str, Any] | None:
    """The manifest of a family's trained references; ``None`` where there is none."""
    file = zoo / f"{family}.json"
    if not file.is_file():
        return None
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return values


def references(family: Family, zoo: Traversable = ZOO) -> tuple[Reference, ...]:
    """The references of a family, exact ones first. A trained bound never stands in for an exact number of its name.

    Args:
        family: whose.
        zoo: the folder of manifests.
    """
    exact = family.references
    named = {reference.name for reference in exact}
    found = manifest(family.name, zoo)
    trained = () if found is None else found["references"].items()
    return (
        *exact,
        *(Reference(name, float(entry["value"]), entry["source"]) for name, entry in trained if name not in named),
    )
