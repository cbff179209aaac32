"""Score what is kept of a cell.

    python -m learners_table.scoring FOLDER PLAN [--run RUN]

FOLDER is the cell's (``kept``), PLAN an evaluation plan in JSON. RUN is a finished run whose revision is taken over
first. Weights that were scored by the same plan already are left as they are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

import torch

from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.evaluation.plan import Plan, draw_tasks
from innerloop_server.evaluation.protocol import evaluate
from innerloop_server.store.codec import spec_from_json
from innerloop_server.tasks.registry import load_registry
from innerloop_server.training.candidates import META
from learners_table.kept import Kept

ROWS = 4_096
"""Sessions that the device holds at most."""


def score(cell: Kept, plan: Plan) -> None:
    """Score a cell's weights and note it in its folder.

    Raises:
        SystemExit: there are none.
    """
    manifest = cell.manifest()
    if manifest is None:
        raise SystemExit(f"{cell.folder} holds no weights")
    spec, weights = spec_from_json(manifest["spec"]), cell.folder / META
    registry = load_registry()
    engine = LocalEngine(EngineCore(registry, torch.device("cpu"), device_rows=ROWS))
    tasks = draw_tasks(registry.get(spec.family), plan)
    revision = RevisionRef(str(cell.folder), cell.digest(), str(weights.resolve()), spec)
    cell.note(plan, asyncio.run(evaluate(engine, plan, tasks, revision)).returns)


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m learners_table.scoring", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("plan", type=json.loads)
    parser.add_argument("--run", type=Path)
    options = parser.parse_args(arguments)
    cell, plan = Kept(options.folder), Plan.from_json(options.plan)
    torch.set_num_threads(1)
    if options.run is not None:
        cell.take(options.run)
    if cell.returns(plan) is None:
        score(cell, plan)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
