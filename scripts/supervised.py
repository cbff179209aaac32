"""Score trained learners of supervised families beside what learning from a task's examples alone reaches.

    python scripts/supervised.py RUN... --record docs

Each RUN is a folder that scripts/train wrote; several of one family are its seeds. Everything is on the fixed test
tasks (``evaluation/protocols.toml``), baselines and learners on the same examples and queries in the same run. Writes
``results-supervised.json`` and ``results-supervised.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from baselines import SHOTS, baseline_scores, catches_up, ways

from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.measures import ACCURACY, MSE
from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.evaluation.plan import Plan, draw_tasks, fixed_plan
from innerloop_server.evaluation.protocol import evaluate
from innerloop_server.store.codec import spec_from_json
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import load_registry
from innerloop_server.training.run import RunFolder

SHOWN = (0, 1, 2, 3, 5, 10)
"""Adaptation steps that the page shows."""


def revision(run: Path) -> Path:
    """The folder of a run's last revision."""
    return max(RunFolder(run).revisions.iterdir())


def score(run: Path, family: Family, plan: Plan) -> dict[str, Any]:
    """One learner after each adaptation step, and how it was trained."""
    folder = revision(run)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    spec = spec_from_json(manifest["spec"])
    weights = (folder / "meta.safetensors").resolve()
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    ref = RevisionRef(f"learners/{spec.name}", digest, str(weights), spec)
    engine = LocalEngine(EngineCore(load_registry(), torch.device("cpu"), device_rows=256))
    result = asyncio.run(evaluate(engine, plan, draw_tasks(family, plan), ref))
    steps = [
        {"k": s.k, "mean": s.mean, "low": s.low, "high": s.high, "metrics": dict(s.metrics)} for s in result.scores
    ]
    kept = ("command", "commit", "seed", "updates", "environment_steps", "wall_seconds", "cpu_seconds")
    return {"training": {name: manifest[name] for name in kept} | {"weights_sha256": digest}, "steps": steps}


def measure(name: str, runs: Sequence[Path]) -> dict[str, Any]:
    """One family: its learners and its baselines."""
    family = load_registry().get(name)
    plan = fixed_plan(family)
    print(f"{name}: baselines", file=sys.stderr, flush=True)
    rows = baseline_scores(family, SHOTS, draw_tasks(family, plan), plan)
    learners = []
    for run in runs:
        print(f"{name}: {run}", file=sys.stderr, flush=True)
        learners.append(score(run, family, plan))
    return {
        "plan": plan.to_json(),
        "shots": plan.episodes_per_step // ways(family),
        "learners": learners,
        "baselines": [dataclasses.asdict(row) for row in rows],
        "catch_up": {
            method: catches_up(
                [row for row in rows if row.method == method], _main(learners[0]["steps"][-1]["metrics"])
            )
            for method in dict.fromkeys(row.method for row in rows)
        },
    }


def _main(metrics: Mapping[str, float]) -> float:
    return metrics[ACCURACY] if ACCURACY in metrics else metrics[MSE]


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "# Results on labelled tasks",
        "",
        "Final scores on fixed, unseen test tasks: held-out digits, scripts, languages; new sinusoids and pendulums.",
        "MAML and the baselines learn from the same examples and answer the same queries, in the same run. Written by",
        "`python scripts/supervised.py RUN... --record docs`; the JSON file beside has every number.",
    ]
    for name, result in results.items():
        plan, shots = result["plan"], result["shots"]
        metrics = list(result["learners"][0]["steps"][-1]["metrics"])
        lines += [
            "",
            f"## {name}",
            "",
            f"{plan['tasks']} tasks, {shots} shots, {plan['evaluation_episodes']} queries each.",
            "",
            f"| learner | k | {' | '.join(metrics)} | 95 % interval of the return |",
            "|---|---|" + "---|" * (len(metrics) + 1),
        ]
        for learner in result["learners"]:
            for step in learner["steps"]:
                if step["k"] in SHOWN:
                    cells = " | ".join(f"{step['metrics'][m]:.4f}" for m in metrics)
                    interval = f"{step['low']:.4f} .. {step['high']:.4f}"
                    lines.append(f"| seed {learner['training']['seed']} | {step['k']} | {cells} | {interval} |")
        compared = next(m for m in metrics if m in result["baselines"][0]["scores"])
        methods = list(dict.fromkeys(row["method"] for row in result["baselines"]))
        lines += [
            "",
            f"| {compared} of a baseline with so many shots | {' | '.join(map(str, SHOTS))} | as good as seed 0 at |",
            "|---" * (len(SHOTS) + 2) + "|",
        ]
        for method in methods:
            cells = " | ".join(
                f"{row['scores'][compared][0]:.4f}" for row in result["baselines"] if row["method"] == method
            )
            when = result["catch_up"][method]
            lines.append(f"| {method} | {cells} | {f'{when} shots' if when else f'more than {SHOTS[-1]} shots'} |")
        lines.append("")
        for learner in result["learners"]:
            t = learner["training"]
            lines.append(
                f"* `{t['command']}` (commit `{t['commit'][:12]}`, {t['updates']} updates, "
                f"{t['environment_steps'] / 1e6:.2f} million examples, {t['cpu_seconds']:.0f} s of one core, weights "
                f"`{t['weights_sha256'][:16]}`)"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, then write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--record", type=Path, required=True, help="folder that gets the two files")
    args = parser.parse_args()
    torch.set_num_threads(1)
    grouped: dict[str, list[Path]] = {}
    for run in args.runs:
        grouped.setdefault(RunFolder(run).settings().spec.family, []).append(run)
    results = {name: measure(name, runs) for name, runs in grouped.items()}
    (args.record / "results-supervised.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (args.record / "results-supervised.md").write_text(page(results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
