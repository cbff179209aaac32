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

from innerloop.arrays import Array
from innerloop.policy import Policy
from innerloop_server import zoo
from innerloop_server.actors.environments import INSTALLED
from innerloop_server.actors.pool import ActorPool
from innerloop_server.domain import Simulator, Task
from innerloop_server.evaluation.plan import Plan, draw_tasks, fixed_plan
from innerloop_server.evaluation.scores import ORACLE, standard_error
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.ppo import Ppo
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import load_registry
from innerloop_server.training import references
from innerloop_server.training.episodes import Collect, actor_collector, batch_collector

ACTORS, SLOTS = 2, 128
VISIBLE_SOURCE = "innerloop_server.training.visible:load_visible_registry"


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
    """Train and score references with every seed; write ``<family>.json`` and the best policies to ``out``. Kinds that
    are not asked for stay as they are.

    Returns:
        The manifest.
    """
    plan = fixed_plan(family)
    tasks = draw_tasks(family, plan)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{family.name}.json"
    entries = json.loads(file.read_text(encoding="utf-8"))["references"] if file.is_file() else {}
    entries |= {kind: _entry(family, kind, seeds, plan, tasks, out) for kind in kinds}
    manifest = {
        "family": family.name,
        "references": {kind: entries[kind] for kind in references.KINDS if kind in entries},
        "test": {
            "split": plan.split,
            "task_seed": plan.task_seed,
            "tasks": plan.tasks,
            "episodes": plan.evaluation_episodes,
            "seed": plan.seed,
        },
    }
    file.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def _entry(
    family: Family, kind: str, seeds: Sequence[int], plan: Plan, tasks: Sequence[Task], out: Path
) -> dict[str, Any]:
    values = references.settings(family.name, kind)
    seen, learner = references.bind(family, kind, values)
    runs: list[dict[str, Any]] = []
    metas: list[Tensors] = []
    with _collector(seen, kind) as collect:
        for seed in seeds:
            trained = references.train(seen, learner, collect, seed, _say(f"{family.name} {kind} seed {seed}"))
            metas.append(trained.meta)
            scored = {
                acting: _summary(
                    references.returns(
                        learner, trained.meta, collect, tasks, plan.evaluation_episodes, plan.seed, greedy=greedy
                    )
                )
                for acting, greedy in (("greedy", True), ("sampled", False))
            }
            runs.append(
                {
                    "seed": seed,
                    "updates": learner.settings.updates,
                    "environment_steps": trained.environment_steps,
                    "wall_seconds": round(trained.wall_seconds, 1),
                    "cpu_seconds": round(trained.cpu_seconds, 1),
                    "curve": [round(mean, 2) for mean in trained.curve],
                    **scored,
                }
            )
    value, acting, chosen = max((run[a]["mean"], a, i) for i, run in enumerate(runs) for a in ("greedy", "sampled"))
    name = f"{family.name}-{kind}.safetensors"
    data = _policy_file(learner, metas[chosen])
    (out / name).write_bytes(data)
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
        "weights": name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "command": " ".join(["scripts/train-references", family.name, "--kinds", kind, "--seeds", *map(str, seeds)]),
        "versions": {name: importlib.metadata.version(name) for name in ("innerloop", "torch", "numpy", "gymnasium")}
        | {"python": platform.python_version()},
        "settings": learner.settings.to_json(),
        "runs": runs,
    }


@contextmanager
def _collector(seen: Family, kind: str) -> Iterator[Collect]:
    """Episodes of the family as the reference sees it, from its first simulator."""
    if seen.simulators[0] is Simulator.BATCH:
        yield batch_collector(seen)
        return
    with ActorPool(ACTORS, SLOTS, VISIBLE_SOURCE if kind == ORACLE else INSTALLED) as pool:
        yield actor_collector(pool)


def _summary(returns: Array) -> Mapping[str, float]:
    return {"mean": float(returns.mean()), "standard_error": standard_error(returns)}


def _policy_file(learner: Ppo, meta: Tensors) -> bytes:
    header, weights = learner.export(meta, learner.begin(meta, 1))
    return Policy(dataclasses.replace(header, learner=learner.spec.name), weights[0]).to_bytes()


def _say(what: str) -> Any:
    def say(update: int, mean_return: float) -> None:
        print(f"{what}: update {update}, return {mean_return:.1f}", file=sys.stderr, flush=True)  # noqa: T201

    return say


if __name__ == "__main__":
    sys.exit(main())
