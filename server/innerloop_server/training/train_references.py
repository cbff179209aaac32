"""``scripts/train-references FAMILY``: train both references, score them, and keep what came out in the zoo.

Of each kind the best seed's policy is kept as a portable policy file, beside a manifest of every run.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from innerloop.policy import Policy, load_policy
from innerloop_server import zoo
from innerloop_server.actors.pool import ActorPool
from innerloop_server.domain import Simulator, Task
from innerloop_server.evaluation.plan import Plan, draw_tasks, fixed_plan
from innerloop_server.evaluation.scores import MEMORYLESS, ORACLE, standard_error
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.ppo import Ppo
from innerloop_server.learners.ppo_settings import PpoSettings
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import load_registry
from innerloop_server.training import references
from innerloop_server.training.episodes import Collect, actor_collector, batch_collector

ACTINGS = ("greedy", "sampled")
TOLD_ONE = "told_one"
ACTORS, SLOTS = 2, 128


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="scripts/train-references", description=__doc__)
    parser.add_argument("family")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--kinds", nargs="+", choices=references.KINDS, default=list(references.KINDS))
    parser.add_argument("--out", type=Path, default=Path(zoo.__path__[0]) / "references")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    family = load_registry().get(options.family)
    manifest = train_family(family, options.kinds, options.seeds, options.out)
    for kind in options.kinds:
        entry = manifest["references"][kind]
        print(f"{family.name} {kind}: {entry['value']:.2f} ({entry['acting']}, seed {entry['seed']})")  # noqa: T201
    return 0


def train_family(family: Family, kinds: Sequence[str], seeds: Sequence[int], out: Path) -> dict[str, Any]:
    """Train and score references with every seed, and keep the best policies and ``<family>.json`` in ``out``.

    The manifest is written after each run, and runs that it holds with the same settings, on the same test, are not
    run again: so more seeds can be added, and a command that was stopped goes on.

    Returns:
        The manifest.
    """
    plan = fixed_plan(family)
    test = {
        "split": plan.split,
        "task_seed": plan.task_seed,
        "tasks": plan.tasks,
        "episodes": plan.evaluation_episodes,
        "seed": plan.seed,
    }
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{family.name}.json"
    before: dict[str, Any] = {"test": test, "references": {}}
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
    # Entries of another test would not compare; those that no training made (measured ones) stay in any case.
    entries: dict[str, Any] = {
        name: entry
        for name, entry in before["references"].items()
        if before.get("test") == test or "settings" not in entry
    }
    manifest = {**before, "family": family.name, "test": test, "references": entries}
    for kind in kinds:
        seen, learner = references.bind(family, kind, references.settings(family.name, kind))
        if kind in entries and not _same_settings(entries[kind], learner):
            del entries[kind]
        tasks = draw_tasks(seen, plan)
        with _collector(seen) as collect:
            for seed in seeds:
                runs = entries[kind]["runs"] if kind in entries else []
                if any(run["seed"] == seed for run in runs):
                    continue
                trained = references.train(seen, learner, collect, seed, _say(f"{family.name} {kind} seed {seed}"))
                run = _run(learner, seed, trained, collect, plan, tasks)
                entries[kind] = _entry(family, kind, learner, [*runs, run], plan)
                if entries[kind]["seed"] == seed:
                    (out / entries[kind]["weights"]).write_bytes(_policy_file(learner, trained.meta))
                entries[kind]["sha256"] = hashlib.sha256((out / entries[kind]["weights"]).read_bytes()).hexdigest()
                file.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    if all(kind in entries and "settings" in entries[kind] for kind in references.KINDS):
        _tell_one(family, entries, plan, out)
        file.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def _tell_one(family: Family, entries: dict[str, Any], plan: Plan, out: Path) -> None:
    """Score the oracle as it is told one task for all, and let that be the memoryless reference where it is better."""
    memoryless, oracle = entries[MEMORYLESS], entries[ORACLE]
    if memoryless.get(TOLD_ONE, {}).get("oracle_sha256") == oracle["sha256"]:
        return
    # The policy alone is used: what it is trained with does not matter.
    _, learner = references.bind(family, MEMORYLESS, {"hidden_sizes": oracle["settings"]["hidden_sizes"]})
    with _collector(family) as collect:
        meta, judged = references.told_one(family, learner, load_policy(out / oracle["weights"]), collect)
        scored = _scored(learner, meta, collect, plan, draw_tasks(family, plan))
    memoryless[TOLD_ONE] = {"oracle_sha256": oracle["sha256"], "validation": judged, **scored}
    acting = max(ACTINGS, key=lambda name: scored[name]["mean"])
    if scored[acting]["mean"] <= memoryless["value"]:
        return
    weights = _policy_file(learner, meta)
    name = f"{family.name}-told-one.safetensors"  # the best seed's stays
    (out / name).write_bytes(weights)
    memoryless |= {
        "value": scored[acting]["mean"],
        "acting": acting,
        "weights": name,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "source": (
            f"the oracle of zoo/references/{family.name}.json told one training task for all, {acting}, on the "
            f"{plan.tasks} fixed test tasks; better than PPO trained without seeing the task's parameters"
        ),
    }


def _same_settings(entry: Mapping[str, Any], learner: Ppo) -> bool:
    """Settings that an older version did not know have their defaults."""
    return "settings" in entry and PpoSettings.from_json(entry["settings"]) == learner.settings


def _run(
    learner: Ppo, seed: int, trained: references.Trained, collect: Collect, plan: Plan, tasks: Sequence[Task]
) -> dict[str, Any]:
    """One training and how it scored."""
    return {
        "seed": seed,
        "updates": learner.settings.updates,
        "environment_steps": trained.environment_steps,
        "wall_seconds": round(trained.wall_seconds, 1),
        "cpu_seconds": round(trained.cpu_seconds, 1),
        "curve": [round(mean, 2) for mean in trained.curve],
        **_scored(learner, trained.meta, collect, plan, tasks),
    }


def _scored(learner: Ppo, meta: Tensors, collect: Collect, plan: Plan, tasks: Sequence[Task]) -> dict[str, Any]:
    """Mean and standard error on the test tasks, for each way of acting."""
    returns = {
        acting: references.returns(
            learner, meta, collect, tasks, plan.evaluation_episodes, plan.seed, greedy=acting == "greedy"
        )
        for acting in ACTINGS
    }
    return {
        acting: {"mean": float(each.mean()), "standard_error": standard_error(each)} for acting, each in returns.items()
    }


def _entry(family: Family, kind: str, learner: Ppo, runs: Sequence[dict[str, Any]], plan: Plan) -> dict[str, Any]:
    """The reference that all runs of a kind come to: the best seed, greedy or sampled."""
    value, acting, chosen = max((run[acting]["mean"], acting, i) for i, run in enumerate(runs) for acting in ACTINGS)
    seeds = [run["seed"] for run in runs]
    view = "with the task's parameters in view" if kind == ORACLE else "without seeing the task's parameters"
    return {
        "value": value,
        "acting": acting,
        "seed": seeds[chosen],
        "source": (
            f"PPO trained {view} on {learner.settings.updates * learner.settings.tasks_per_update} TRAIN tasks, "
            f"{acting}, the best of {len(seeds)} seed(s), on the {plan.tasks} fixed test tasks "
            f"(zoo/references/{family.name}.json)"
        ),
        "weights": f"{family.name}-{kind}.safetensors",
        "command": " ".join(["scripts/train-references", family.name, "--kinds", kind, "--seeds", *map(str, seeds)]),
        "versions": {name: importlib.metadata.version(name) for name in ("innerloop", "torch", "numpy", "gymnasium")}
        | {"python": platform.python_version()},
        "settings": learner.settings.to_json(),
        "runs": list(runs),
    }


@contextmanager
def _collector(seen: Family) -> Iterator[Collect]:
    """Episodes of the family as the reference sees it, from its first simulator."""
    if seen.simulators[0] is Simulator.BATCH:
        yield batch_collector(seen)
        return
    with ActorPool(ACTORS, SLOTS) as pool:
        yield actor_collector(pool)


def _policy_file(learner: Ppo, meta: Tensors) -> bytes:
    header, weights = learner.export(meta, learner.begin(meta, 1))
    return Policy(dataclasses.replace(header, learner=learner.spec.name), weights[0]).to_bytes()


def _say(what: str) -> Any:
    def say(update: int, mean_return: float) -> None:
        print(f"{what}: update {update}, return {mean_return:.1f}", file=sys.stderr, flush=True)  # noqa: T201

    return say


if __name__ == "__main__":
    sys.exit(main())
