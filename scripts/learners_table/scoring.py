"""Score one finished run, and keep what it scored in its folder.

    python -m learners_table.scoring RUN PLAN

PLAN is an evaluation plan in JSON. A run that was scored by the same plan, with the same weights, is left as it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.evaluation.plan import Plan, draw_tasks
from innerloop_server.evaluation.protocol import evaluate
from innerloop_server.store.codec import spec_from_json
from innerloop_server.tasks.registry import load_registry
from innerloop_server.training.files import write_durably
from innerloop_server.training.run import RunFolder

SCORES = "scores.json"
ROWS = 4_096
"""Sessions that the device holds at most."""


def revision(run: Path) -> Path | None:
    """The folder of a finished run's revision; ``None``: it is not finished."""
    folder = RunFolder(run)
    if not folder.settings_file.exists():
        return None
    last = folder.revisions / f"{folder.settings().updates:08d}"
    return last if (last / "manifest.json").exists() else None


def stored(run: Path, plan: Plan) -> dict[str, Any] | None:
    """What a run scored by ``plan`` with the weights that it has; ``None``: nothing yet."""
    last, file = revision(run), run / SCORES
    if last is None or not file.exists():
        return None
    scores: dict[str, Any] = json.loads(file.read_bytes())
    digest = hashlib.sha256((last / "meta.safetensors").read_bytes()).hexdigest()
    return scores if (scores["plan"], scores["weights_sha256"]) == (plan.to_json(), digest) else None


def score(run: Path, plan: Plan) -> dict[str, Any]:
    """Score a finished run and note it in its folder."""
    last = revision(run)
    if last is None:
        raise SystemExit(f"{run} is not finished")
    manifest = json.loads((last / "manifest.json").read_bytes())
    spec, weights = spec_from_json(manifest["spec"]), last / "meta.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    registry = load_registry()
    engine = LocalEngine(EngineCore(registry, torch.device("cpu"), device_rows=ROWS))
    tasks = draw_tasks(registry.get(spec.family), plan)
    wall, cpu = time.perf_counter(), time.process_time()
    result = asyncio.run(evaluate(engine, plan, tasks, RevisionRef(str(run), digest, str(weights.resolve()), spec)))
    scores = {
        "plan": plan.to_json(),
        "weights_sha256": digest,
        "returns": result.returns.tolist(),
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }
    write_durably(run / SCORES, json.dumps(scores).encode())
    return scores


def main(arguments: list[str]) -> int:
    """The command."""
    run, plan = Path(arguments[0]), Plan.from_json(json.loads(arguments[1]))
    torch.set_num_threads(1)
    if stored(run, plan) is None:
        score(run, plan)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
