"""What all stored runs come to, as JSON values."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from innerloop.arrays import Array
from innerloop_server.domain import Reference, ReturnUnit
from innerloop_server.evaluation.references.catalog import references
from innerloop_server.evaluation.scores import MEMORYLESS, ORACLE, interquartile_mean
from innerloop_server.streams import Purpose, stream
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import Registry
from learners_table.intervals import seed_interval, trial_returns
from learners_table.kept import Kept
from learners_table.plan import Cell, Entry, Table

OF_TRAINING = ("command", "commit", "updates", "environment_steps", "cpu_seconds", "wall_seconds", "weights_sha256")
"""What is taken over from a run's manifest."""


@dataclass(frozen=True)
class Stored:
    """A scored run."""

    seed: int
    manifest: Mapping[str, Any]
    returns: Array
    """[M, K + 1]."""


def gather(table: Table, kept: Path, registry: Registry) -> dict[str, Any]:
    """Everything that was scored so far.

    Args:
        table: the plan.
        kept: the folder of all that is kept.
        registry: where families are looked up.
    """
    families: dict[str, Any] = {}
    for name, entries in table.entries.items():
        family = registry.get(name)
        rows = []
        for entry in entries:
            cells = [cell for cell in table.cells if (cell.family, cell.entry.label) == (name, entry.label)]
            found = [one for cell in cells if (one := read(table, cell, kept, registry)) is not None]
            rows.append(row(family, entry, found))
        known = references(family)
        families[name] = {
            "horizon": family.horizon,
            "episodes_per_trial": family.episodes_per_trial,
            "evaluation": entries[0].evaluation(family, table.evaluation[name]).to_json(),
            "references": [asdict(one) for one in known],
            "rows": [{**one, "gap_closed": _gap_closed(one, known, family)} for one in rows],
        }
    return {"machine": machine(), "seeds": list(table.seeds), "episodes": list(table.episodes), "families": families}


def read(table: Table, cell: Cell, kept: Path, registry: Registry) -> Stored | None:
    """What a cell scored, if it was trained as it would be now and scored."""
    one = Kept(kept / cell.folder)
    manifest, returns = one.manifest(), one.returns(table.plan(cell, registry))
    if manifest is None or returns is None or not one.holds(cell.spec(registry)):
        return None
    return Stored(cell.seed, manifest, returns)


def row(family: Family, entry: Entry, runs: Sequence[Stored]) -> dict[str, Any]:
    """One method on one family: every run, and the scores of all together at each age of the policy."""
    shown: dict[str, Any] = {
        "label": entry.label,
        "method": entry.method,
        "settings": dict(entry.settings),
        "adapts": entry.adapts,
        "runs": [
            {
                "seed": one.seed,
                **{name: one.manifest[name] for name in OF_TRAINING},
                "means": one.returns.mean(0).tolist(),
            }
            for one in runs
        ],
        "points": [],
        "trial": None,
    }
    if not runs:
        return shown
    returns = np.stack([one.returns for one in runs])
    shown["points"] = [{"episodes": at, **summary(returns[..., k], k)} for k, at in enumerate(entry.consumed)]
    if family.episodes_per_trial > 1:
        trials = trial_returns(returns, entry.consumed, family.episodes_per_trial)
        shown["trial"] = summary(trials, len(entry.consumed))
    return shown


def summary(scores: Array, counter: int) -> dict[str, float | None]:
    """Interquartile mean, its interval over seeds, and the mean, of [S, M] scores."""
    low, high = seed_interval(scores, stream(0, Purpose.BOOTSTRAP, counter))
    values = {"iqm": interquartile_mean(scores.ravel()), "low": low, "high": high, "mean": float(scores.mean())}
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def machine() -> dict[str, Any]:
    """The machine that this runs on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {"architecture": platform.machine(), "processor": next(models, ""), "cores": os.cpu_count()}


def _gap_closed(shown: Mapping[str, Any], known: Sequence[Reference], family: Family) -> dict[str, float]:
    """Episodes consumed -> share of the gap between the memoryless and the oracle reference that the mean closes."""
    each = {
        one.name: one.value / (family.episodes_per_trial if one.unit is ReturnUnit.TRIAL else 1)
        for one in known
        if one.name in (MEMORYLESS, ORACLE)
    }
    if len(each) < 2:
        return {}
    low, high = each[MEMORYLESS], each[ORACLE]
    return {str(point["episodes"]): (point["mean"] - low) / (high - low) for point in shown["points"]}
