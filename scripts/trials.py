"""Score a learner that remembers on many whole trials, one of each task: the return of a trial, and of its episodes.

    python scripts/trials.py RUN [--split validation] [--sampled] [--trials N] [--json]

RUN is a folder with manifest.json and meta.safetensors: a revision of scripts/train, or one of the zoo. How many
trials, of which tasks and with which seeds is fixed in server/innerloop_server/evaluation/trials.toml. Trials are
independent, so the standard error is that of their mean; scripts/score.py, on few tasks with many fresh episodes each,
says how a session's policy does after every episode.

Settings are chosen on validation tasks; test tasks are for the result.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import tomllib
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import safetensors.torch
import torch

from innerloop_server.domain import Split, Task
from innerloop_server.errors import InnerloopError, InvalidField
from innerloop_server.learners.learner import Learner, Tensors
from innerloop_server.learners.registry import build, remembers
from innerloop_server.store.codec import spec_from_json
from innerloop_server.streams import Purpose, derive
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import custom_task, sample_task
from innerloop_server.training.trial_collect import batch_collector
from innerloop_server.training.trial_student import by_episode

PLAN = resources.files("innerloop_server.evaluation") / "trials.toml"
CHUNK_STEPS = 1_000_000
"""Steps that are held at once."""


@dataclass(frozen=True)
class Result:
    """Of whole trials."""

    trials: int
    mean: float
    """Undiscounted return of a trial."""
    standard_error: float
    episodes: list[float]
    """Mean return of each episode of a trial."""
    seconds: float


def main() -> int:
    """Score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", choices=["test", "validation"], default="test")
    parser.add_argument("--sampled", action="store_true", help="sample actions instead of taking the policy's mode")
    parser.add_argument("--trials", type=int, default=0, help="0: as many as the plan says")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        spec = spec_from_json(json.loads((args.run / "manifest.json").read_text())["spec"])
        if not remembers(spec):
            raise InvalidField(
                "run", f"{spec.method} does not remember: its trials are its episodes; see scripts/score.py"
            )
        family = load_registry().get(spec.family)
        meta = safetensors.torch.load_file(args.run / "meta.safetensors")
        split = Split(args.split)
        result = score(family, build(spec), meta, split, args.trials or planned(spec.family), greedy=not args.sampled)
    except (InnerloopError, OSError) as error:
        print(f"scripts/trials: {error}", file=sys.stderr)
        return 1
    report(spec.name, split, result, as_json=args.json)
    return 0


def planned(family: str) -> int:
    """How many trials the plan has for a family."""
    plan = tomllib.loads(PLAN.read_text())
    own = plan.get(family) or plan.get(family.partition(".")[0]) or plan["default"]
    return int(own["trials"])


def score(family: Family, learner: Learner, meta: Tensors, split: Split, trials: int, *, greedy: bool) -> Result:
    """Play so many trials.

    Args:
        family: what is played; it has a batch face.
        learner: a method that remembers.
        meta: its meta-parameters.
        split: of the tasks. Those of a family that can enumerate them come in turn.
        trials: one of each task.
        greedy: the mode of the policy instead of its samples.
    """
    seeds = tomllib.loads(PLAN.read_text())["seeds"][split.value]
    collect = batch_collector(family, learner, torch.device("cpu"), greedy=greedy)
    episodes = learner.inner_steps + 1
    chunk = max(1, CHUNK_STEPS // (family.horizon * episodes))
    began = time.process_time()
    parts = []
    for start in range(0, trials, chunk):
        tasks = _tasks(family, split, seeds["task_seed"], range(start, min(start + chunk, trials)))
        record = collect(meta, tasks, derive(seeds["seed"], Purpose.EVALUATION_SESSION, start))
        parts.append(by_episode(record.rewards.double(), record.episode, episodes))
    by_trial = torch.cat(parts)
    returns = by_trial.sum(1)
    deviation = float((returns - returns.mean()).square().sum()) / max(1, trials - 1)
    return Result(
        trials=trials,
        mean=float(returns.mean()),
        standard_error=math.sqrt(deviation / trials),
        episodes=by_trial.mean(0).tolist(),
        seconds=time.process_time() - began,
    )


def _tasks(family: Family, split: Split, seed: int, numbers: range) -> list[Task]:
    every = family.enumerate(split)
    if every is None:
        return [sample_task(family, seed, split, i) for i in numbers]
    return [custom_task(family, every[i % len(every)]) for i in numbers]


def report(name: str, split: Split, result: Result, *, as_json: bool) -> None:
    """The numbers, for people or programs."""
    if as_json:
        print(json.dumps({"learner": name, "split": split.value, **asdict(result)}, indent=2))
        return
    print(f"{name}: {result.trials} {split.value} trials, {result.seconds:.0f} s")
    print(f"return of a trial {result.mean:.4f}, standard error {result.standard_error:.4f}")
    shown = result.episodes if len(result.episodes) <= 10 else [*result.episodes[:5], *result.episodes[-5:]]
    print("of its episodes   " + "  ".join(f"{mean:.3f}" for mean in shown))


if __name__ == "__main__":
    sys.exit(main())
