"""Which teacher gets a learner to reach the most goals for the fewest environment steps?

The same student (goal-conditioned PPO) learns the ``point-maze`` on tasks from each generator, whose settings are their
defaults. Its own were tuned on the uniform generator and validation goals, but for ``lowest_log_std``: without that
floor ``goal-gan`` stalled there. Its greedy policy is tried on an even grid of held-out goals; *coverage* is the share
that it reaches. Environment steps are all that were taken in training: both students' for ``paired``, those that were
only looked at for ``replay``.

One core, one to four minutes a run. Every run is kept in --out and goes on where it was when the command is given
again.
Run it: ``scripts/bench teachers [--quick] [--record docs]``.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from innerloop.arrays import Array
from innerloop_server.domain import Split, Task
from innerloop_server.evaluation.scores import ORACLE, bootstrap_interval
from innerloop_server.learners.ppo import Ppo
from innerloop_server.tasks.families.point_maze import PointMaze
from innerloop_server.tasks.generators.grid import GridGenerator
from innerloop_server.training import generators, outer_loop, paired, references
from innerloop_server.training.adversary_generator import AdversaryGenerator
from innerloop_server.training.episodes import Collect, batch_collector
from innerloop_server.training.files import write_durably
from innerloop_server.training.outer_loop import TrainState
from innerloop_server.training.paired import Paired
from innerloop_server.training.ppo_student import PpoStudent

TEACHERS = ("uniform", "replay", "goal-gan", "paired")
STUDENT: Mapping[str, Any] = {"tasks_per_update": 32, "learning_rate": 1e-3, "lowest_log_std": -0.5}
"""Over ``PpoSettings``'s own defaults."""
HELD_OUT = 200
WANTED = (0.5, 0.8)
"""Coverages whose cost is compared."""


@dataclass(frozen=True)
class Plan:
    """What a run is; a stored run of another plan is not gone on with."""

    budget: int = 1_000_000
    """Environment steps."""
    every: int = 20_000
    """Steps between looks at the held-out goals."""
    split: Split = Split.TEST
    """Of the held-out goals."""
    student: Mapping[str, Any] = field(default_factory=lambda: STUDENT)


@dataclass(frozen=True)
class Run:
    """One teacher, one seed."""

    teacher: str
    seed: int
    plan: Plan
    steps: tuple[int, ...] = ()
    """Environment steps at each look."""
    coverage: tuple[float, ...] = ()
    """Share of the held-out goals reached."""
    updates: int = 0
    seconds: float = 0.0


def held_out(plan: Plan) -> tuple[Task, ...]:
    """The goals that nobody is trained on."""
    grid = GridGenerator(PointMaze(), 0, plan.split)
    return grid.propose(grid.initial(), HELD_OUT)[0].tasks


def go_on(run: Run, folder: Path) -> Run:
    """Run, or go on with, one run to its end; what is kept in ``folder`` is never older than the last look."""
    stored, checkpoint = (folder / f"{run.teacher}-{run.seed}.{end}" for end in ("json", "safetensors"))
    family = PointMaze()
    seen, ppo = references.bind(family, ORACLE, run.plan.student)
    student = PpoStudent(ppo, batch_collector(seen))
    proposer = generators.build(run.teacher, family, run.seed)
    teacher: Any = Paired(proposer, student) if isinstance(proposer, AdversaryGenerator) else proposer
    state = outer_loop.start(student, teacher, run.seed)
    if stored.exists() and (before := _read(stored)).plan == run.plan:
        run, state = before, outer_loop.from_bytes(checkpoint.read_bytes())
    goals = held_out(run.plan)
    while not run.steps or run.steps[-1] < run.plan.budget:
        began = time.perf_counter()
        until = len(run.steps) * run.plan.every
        while state.environment_steps < until:
            update = paired.update if isinstance(teacher, Paired) else outer_loop.teach
            state, _ = update(student, teacher, state, run.seed)
        run = _look(run, state, ppo, student.collect, goals, began)
        write_durably(checkpoint, outer_loop.to_bytes(state))
        write_durably(stored, (json.dumps(asdict(run)) + "\n").encode())
    print(f"{run.teacher} {run.seed}: {run.coverage[-1]:.1%} after {run.seconds:.0f} s", file=sys.stderr, flush=True)
    return run


def _look(run: Run, state: TrainState, ppo: Ppo, collect: Collect, goals: Sequence[Task], began: float) -> Run:
    reached = collect(ppo, state.meta, goals, 1, 0, True).success
    return replace(
        run,
        steps=(*run.steps, state.environment_steps),
        coverage=(*run.coverage, float(reached.double().mean())),
        updates=state.update,
        seconds=run.seconds + time.perf_counter() - began,
    )


def _read(stored: Path) -> Run:
    value = json.loads(stored.read_bytes())
    plan = Plan(**{**value["plan"], "split": Split(value["plan"]["split"])})
    return Run(**{**value, "plan": plan, "steps": tuple(value["steps"]), "coverage": tuple(value["coverage"])})


# -- what came out ----------------------------------------------------------------------------------------------------


def cost(run: Run, wanted: float) -> float:
    """Environment steps until coverage first was what is wanted, by a straight line between looks; infinite: never."""
    for i, share in enumerate(run.coverage):
        if share >= wanted:
            if i == 0:
                return float(run.steps[0])
            low, high = run.coverage[i - 1], share
            return run.steps[i - 1] + (wanted - low) / (high - low) * (run.steps[i] - run.steps[i - 1])
    return math.inf


def curve(runs: Sequence[Run]) -> tuple[Array, Array, Array, Array]:
    """(steps, mean coverage, low, high) of a teacher's runs, the last two a 95 % bootstrap interval over seeds."""
    plan = runs[0].plan
    steps = np.arange(0, plan.budget + 1, plan.every)
    lines = np.stack([np.interp(steps, run.steps, run.coverage) for run in runs])
    bounds = [bootstrap_interval(column, np.random.default_rng(0)) for column in lines.T]
    low, high = np.array(bounds).T
    return steps, lines.mean(0), low, high


def table(results: Mapping[str, Sequence[Run]]) -> str:
    """Markdown, a line a teacher."""
    columns = [f"steps to {wanted:.0%}, median (each seed), thousands | of uniform's" for wanted in WANTED]
    lines = [
        " | ".join(["| teacher", *columns, "mean coverage on the way", "at the end", "seconds a run |"]),
        "|" + "---|" * (2 * len(WANTED) + 4),
    ]
    for teacher, runs in results.items():
        _, mean, low, high = curve(runs)
        interval = f" [{low[-1]:.3f}, {high[-1]:.3f}]" if len(runs) > 1 else ""
        cells = [teacher]
        for wanted in WANTED:
            costs = [cost(run, wanted) for run in runs]
            base = statistics.median(cost(run, wanted) for run in results.get("uniform", runs))
            middle = statistics.median(costs)
            each = ", ".join(map(_thousands, costs))
            cells += [f"{_thousands(middle)} ({each})", f"{middle / base:.2f}" if max(middle, base) < math.inf else "-"]
        cells += [f"{mean.mean():.3f}", f"{mean[-1]:.3f}{interval}", f"{statistics.mean(r.seconds for r in runs):.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _thousands(steps: float) -> str:
    return "never" if steps == math.inf else f"{steps / 1000:.0f}"


def plot(results: Mapping[str, Sequence[Run]], target: Path) -> None:
    """Mean coverage against environment steps, with its interval."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0))
    for teacher, runs in results.items():
        steps, mean, low, high = curve(runs)
        (line,) = axes.plot(steps / 1000, mean, label=teacher)
        axes.fill_between(steps / 1000, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    for wanted in WANTED:
        axes.axhline(wanted, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="environment steps, thousands", ylabel="held-out goals reached", ylim=(0, 1))
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(target, dpi=150)
    pyplot.close(figure)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(prog="scripts/bench teachers", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--teachers", nargs="+", choices=TEACHERS, default=TEACHERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=range(5))
    parser.add_argument("--budget", type=int, default=Plan.budget, help="environment steps of a run")
    parser.add_argument("--validation", action="store_true", help="other held-out goals, to choose settings on")
    parser.add_argument("--quick", action="store_true", help="one seed, a tenth of the steps: does it run?")
    parser.add_argument("--out", type=Path, default=Path("var/teachers"), help="where runs are kept")
    parser.add_argument("--record", type=Path, help="folder that gets teachers.json and teachers.png")
    options = parser.parse_args()
    torch.set_num_threads(1)
    budget, seeds = (options.budget // 10, [0]) if options.quick else (options.budget, options.seeds)
    plan = Plan(budget, split=Split.VALIDATION if options.validation else Split.TEST)
    options.out.mkdir(parents=True, exist_ok=True)
    # Seed by seed, so that what there is after an interruption compares all teachers.
    runs = [go_on(Run(teacher, seed, plan), options.out) for seed in seeds for teacher in options.teachers]
    results = {teacher: [run for run in runs if run.teacher == teacher] for teacher in options.teachers}
    if options.record is not None:
        record = {"student": STUDENT, "held_out": HELD_OUT, "runs": [asdict(run) for run in runs]}
        (options.record / "teachers.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        plot(results, options.record / "teachers.png")
    print(json.dumps([asdict(run) for run in runs], indent=2) if options.json else table(results))


if __name__ == "__main__":
    main()
