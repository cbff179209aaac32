"""Score every shipped learner by the fixed test protocols, and write docs/results.md and docs/results.json.

Everything goes through a real server. The same commit, versions and machine type give the same numbers: tasks and seeds
come from server/innerloop_server/evaluation/protocols.toml.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import innerloop

FAMILIES = ("navigation-2d", "cartpole-dynamics", "pendulum-dynamics")


def main() -> int:
    """Evaluate, and write the two files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of results.md and results.json")
    args = parser.parse_args()
    with innerloop.embedded(device="cpu") as client:
        results = {family: score(client, family) for family in FAMILIES}
    (args.docs / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (args.docs / "results.md").write_text(markdown(results), encoding="utf-8")
    return 0


def score(client: innerloop.Client, family: str) -> dict[str, Any]:
    """One learner, guarded and not, with its references and what it was trained like."""
    result: dict[str, Any] = {}
    for name, guard in (("guarded", True), ("unguarded", False)):
        began = time.perf_counter()
        done = client.evaluate(family, guard=guard).result()
        print(f"{family} {name}: {[round(s.mean, 2) for s in done.scores]}", file=sys.stderr, flush=True)
        result[name] = [
            {
                "k": s.k,
                "mean": s.mean,
                "iqm": s.interquartile_mean,
                "low": s.low,
                "high": s.high,
                "se": s.standard_error,
            }
            for s in done.scores
        ]
        result[f"{name}_seconds"] = round(time.perf_counter() - began, 1)
        plan = done.plan
    result["plan"] = {
        name: getattr(plan, name)
        for name in ("split", "task_seed", "tasks", "steps", "episodes_per_step", "evaluation_episodes", "seed")
    }
    result["references"] = {r.name: {"value": r.value, "source": r.source} for r in done.references}
    revision = client.revision(plan.learner)
    manifest = revision.manifest
    result["revision"] = revision.name
    result["training"] = {
        name: manifest[name]
        for name in ("command", "commit", "seed", "updates", "environment_steps", "wall_seconds", "cpu_seconds")
        if name in manifest
    } | {"weights_sha256": revision.hash}
    return result


def gap_closed(value: float, references: dict[str, Any]) -> float | None:
    """Share of the gap between the best policy without adaptation and the oracle."""
    floor = references.get("memoryless", references.get("no-move"))
    if floor is None or "oracle" not in references:
        return None
    low, high = floor["value"], references["oracle"]["value"]
    return float((value - low) / (high - low))


def markdown(results: dict[str, Any]) -> str:
    """The page."""
    lines = [
        "# Results",
        "",
        "Final scores of the shipped learners on fixed, unseen test tasks: mean undiscounted return of fresh episodes",
        "with sampled actions, and its 95 % bootstrap interval over tasks. Tasks and seeds were fixed in",
        "`server/innerloop_server/evaluation/protocols.toml` before the shipped learners were trained. Written by "
        "`python scripts/results.py`",
        f"({platform.machine()}, two cores, CPU); `results.json` beside this page holds every number. All learning",
        "methods beside each other have [a page of their own](results-learners.md).",
    ]
    for family, result in results.items():
        plan, references, training = result["plan"], result["references"], result["training"]
        lines += [
            "",
            f"## {family}",
            "",
            f"{plan['tasks']} tasks of the {plan['split']} stream (seed {plan['task_seed']}), "
            f"{plan['episodes_per_step']} episodes a step, {plan['evaluation_episodes']} fresh episodes at each k, "
            f"seed {plan['seed']}.",
            "",
            "| k | guarded | 95 % interval | gap closed | unguarded | 95 % interval |",
            "|---|---|---|---|---|---|",
        ]
        for on, off in zip(result["guarded"], result["unguarded"], strict=True):
            closed = gap_closed(on["mean"], references)
            lines.append(
                f"| {on['k']} | **{on['mean']:.2f}** | {on['low']:.2f} .. {on['high']:.2f} | "
                f"{'' if closed is None else f'{closed:.1%}'} | "
                f"{off['mean']:.2f} | {off['low']:.2f} .. {off['high']:.2f} |"
            )
        lines += ["", "| reference | value | source |", "|---|---|---|"]
        lines += [f"| {name} | {r['value']:.2f} | {r['source']} |" for name, r in references.items()]
        lines += [
            "",
            f"Trained by `{training['command']}` (commit `{training.get('commit', '')[:12]}`, "
            f"seed {training['seed']:.0f}, {training['updates']:.0f} updates, "
            f"{training['environment_steps'] / 1e6:.1f} million environment steps, "
            f"{training['cpu_seconds']:.0f} s of one core, {training['wall_seconds']:.0f} s of wall time; weights "
            f"`{training['weights_sha256'][:16]}`).",
        ]
    notes = Path("docs/results-notes.md")
    if notes.exists():
        lines += ["", notes.read_text(encoding="utf-8").rstrip()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
