"""Score a training beside its untrained start, on the fixed tasks of its family, pair by pair.

    python scripts/score.py RUN [--split validation] [--steps K] [--greedy] [--json]

Settings are chosen on validation tasks; test tasks are for the result.

RUN is a folder with manifest.json and meta.safetensors: a revision that scripts/train wrote, or one of the zoo.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import safetensors.torch
import torch

from innerloop_server.actors.pool import ActorPool
from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.domain import LearnerSpec, Split
from innerloop_server.evaluation.plan import Plan, draw_tasks, fixed_plan
from innerloop_server.evaluation.protocol import EvaluationResult, evaluate
from innerloop_server.learners.registry import build, remembers
from innerloop_server.store.codec import spec_from_json
from innerloop_server.tasks.registry import load_registry


def main() -> int:
    """Score both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=None, help="adaptation steps; left out: as in the protocol")
    parser.add_argument("--split", choices=["test", "validation"], default="test")
    parser.add_argument("--greedy", action="store_true", help="score the mode of the policy instead of its samples")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    manifest = json.loads((args.run / "manifest.json").read_text())
    spec = spec_from_json(manifest["spec"])
    trained = (args.run / "meta.safetensors").read_bytes()
    untrained = safetensors.torch.save(build(spec).initial_meta(manifest["seed"]))
    with ActorPool(args.actors, 256) as pool:
        plan = planned(spec, Split(args.split), args.steps, greedy=args.greedy)
        results = [score(spec, weights, plan, pool) for weights in (untrained, trained)]
    report(spec, plan, *results, as_json=args.json)
    return 0


def planned(spec: LearnerSpec, split: Split, steps: int | None, *, greedy: bool) -> Plan:
    """The fixed protocol of the learner's family, as far as the command line leaves it."""
    plan = fixed_plan(load_registry().get(spec.family), split, remembers=remembers(spec))
    return dataclasses.replace(plan, greedy=greedy, steps=plan.steps if steps is None else steps)


def score(spec: LearnerSpec, weights: bytes, plan: Plan, pool: ActorPool) -> EvaluationResult:
    """One revision by a plan."""
    registry = load_registry()
    family = registry.get(spec.family)
    core = EngineCore(registry, torch.device("cpu"), device_rows=256, actors=pool)
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(weights)
        file.flush()
        ref = RevisionRef(f"learners/{spec.name}", hashlib.sha256(weights).hexdigest(), file.name, spec)
        return asyncio.run(evaluate(LocalEngine(core), plan, draw_tasks(family, plan), ref))


def report(
    spec: LearnerSpec, plan: Plan, untrained: EvaluationResult, trained: EvaluationResult, *, as_json: bool
) -> None:
    """Means, and the paired difference over tasks with its standard error."""
    difference = trained.returns - untrained.returns
    rows = [
        {
            "k": k,
            "untrained": float(untrained.returns[:, k].mean()),
            "trained": float(trained.returns[:, k].mean()),
            "difference": float(difference[:, k].mean()),
            "standard_error": float(difference[:, k].std(ddof=1) / len(difference) ** 0.5),
        }
        for k in range(difference.shape[1])
    ]
    if as_json:
        print(
            json.dumps({"learner": spec.name, "split": plan.split, "tasks": len(difference), "scores": rows}, indent=2)
        )
        return
    print(f"{spec.name}: {len(difference)} fixed {plan.split} tasks, paired")
    print(f"{'k':>3} {'untrained':>10} {'trained':>10} {'difference':>11} {'s.e.':>7}")
    for row in rows:
        print("{k:>3} {untrained:>10.2f} {trained:>10.2f} {difference:>11.2f} {standard_error:>7.2f}".format(**row))


if __name__ == "__main__":
    sys.exit(main())
