"""Whole training updates beside other people's: the same algorithm, network and batch, in one run.

``maml-trpo``: one meta-update on the point robot, 40 tasks x 20 episodes x 100 steps before and after one inner step,
2-64-64-2 tanh, ten conjugate gradients, beside learn2learn's example with its AsyncVectorEnv of ten workers.
``rl2-ppo``: one update on ten-armed bandits, 64 trials x 100 pulls, 64 units of memory and of head, four epochs of four
minibatches, beside sb3-contrib's RecurrentPPO (which has an LSTM where ours has a GRU): once with the same minibatches
and one memory for policy and value, as ours; once as it comes, with minibatches of 128 steps and a memory for each.

Both sides have as many torch threads in each computing process (--threads); learn2learn's workers use the other cores
too. Rounds of both sides are interleaved, their order changes from round to round, and a ratio is the median over
rounds. Seconds are of wall time and, less disturbed on a busy machine, of processor time, workers included.
The floor is what the matrix products of the outer step take by themselves, counted while it runs, at the rate that the
machine multiplies matrices of this shape in the same run.

Run it: ``scripts/bench updates [--quick] [--json]``. The first run makes ``.venv-peers-trainers`` (minutes).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from benchmarks.peers.process import PeerProcess
from torch.utils.flop_counter import FlopCounterMode

from innerloop_server.adaptation.rollout import Rollout
from innerloop_server.domain import Split, Task
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.registry import build
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training import collect, optimiser, outer_trpo, trial_collect
from innerloop_server.training.meta_student import MetaStudent
from innerloop_server.training.specs import spec_for
from innerloop_server.training.student import Student
from innerloop_server.training.trial_student import TrialStudent

PEERS = Path(__file__).parent / "peers"
PEERS_VENV = Path(".venv-peers-trainers")
MAML_TASKS = 40
MAML_EPISODES = 20
MAML: dict[str, Any] = {
    "hidden_sizes": [64, 64],
    "initial_log_std": 0.0,
    "inner_steps": 1,
    "episodes_per_step": MAML_EPISODES,
    "rates": "fixed",
    "initial_rate": 0.1,
    "discount": 0.99,
    "outer": "trpo",
    "kl_limit": 0.01,
    "tasks_per_update": MAML_TASKS,
}
RL2_TRIALS = 64
RL2: dict[str, Any] = {
    "told": False,
    "encoder_sizes": [],
    "memory_size": 64,
    "hidden_sizes": [64],
    "discount": 0.99,
    "trace": 0.9,
    "entropy": 0.01,
    "epochs": 4,
    "minibatches": 4,
    "learning_rate": 3e-3,
    "tasks_per_update": RL2_TRIALS,
}
SAME, AS_IT_COMES = "sb3-contrib", "sb3-contrib as it comes"
QUICK_TASKS = 4
"""Of the peer's 40 that ``--quick`` measures: it goes from task to task, so its time is ten times theirs."""


@dataclass(frozen=True)
class Cost:
    """Of one update."""

    wall: float
    cpu: float
    env_steps: float
    collect_wall: float | None = None
    """Of ``wall``: running episodes, nothing else."""
    collect_cpu: float | None = None
    candidates: float | None = None
    """That the line search looked at."""

    def times(self, factor: float) -> Cost:
        """Of ``factor`` as many tasks."""

        def scaled(part: float | None) -> float | None:
            return None if part is None else factor * part

        return Cost(
            factor * self.wall,
            factor * self.cpu,
            factor * self.env_steps,
            scaled(self.collect_wall),
            scaled(self.collect_cpu),
            self.candidates,
        )


@dataclass(frozen=True)
class Line:
    """A pair of medians, and the medians of the ratios theirs / ours."""

    name: str
    unit: str
    ours: float
    peer: str
    theirs: float
    wall_ratio: float
    cpu_ratio: float


@dataclass(frozen=True)
class Floor:
    """Of our outer step of MAML-TRPO."""

    products: float
    """Floating point operations of its matrix products."""
    rate: float
    """Of them a second of processor time, in products of a hidden layer's shape."""
    seconds: float
    """Processor seconds that it took."""

    @property
    def distance(self) -> float:
        """How many times what its matrix products alone would take."""
        return self.seconds * self.rate / self.products


class Clock:
    """Wall and processor seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """(wall, processor)."""
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


class Updates:
    """One update after the other of a student of ours."""

    def __init__(self, family: str, method: str, settings: Mapping[str, Any]) -> None:
        """Args:
        family: with its options.
        method: ``maml`` or ``rl2``.
        settings: of the method.
        """
        self.family = load_registry().get(family)
        device = torch.device("cpu")
        learner: Any = build(spec_for(self.family, method, settings=settings))
        self._collecting: tuple[float, float] | None = None
        """Wall and processor seconds of this update's rollouts."""
        self.student: Student[Any]
        if method == "maml":
            self.student = MetaStudent(learner, self._timed(collect.batch_collector(self.family, learner, device)))
        else:
            self.student = TrialStudent(learner, trial_collect.batch_collector(self.family, learner, device))
        self.meta = self.student.initial_meta(0)
        self._adam, self._count = optimiser.start(self.meta), 0

    def tasks(self) -> list[Task]:
        """Of the next update."""
        first = self._count * self.student.tasks_per_update
        return [sample_task(self.family, 0, Split.TRAIN, first + i) for i in range(self.student.tasks_per_update)]

    def update(self) -> Cost:
        """Episodes, and all that is learned from them."""
        self._collecting = None
        clock, tasks = Clock(), self.tasks()
        played = self.student.play(self.meta, tasks, [self._count * len(tasks) + i for i in range(len(tasks))])
        everyone = [True] * len(tasks)
        self.meta, self._adam, metrics = self.student.learn(self.meta, self._adam, played, everyone, self._count, 0)
        self._count += 1
        wall, cpu = clock.read()
        collect_wall, collect_cpu = self._collecting or (None, None)
        return Cost(wall, cpu, played.environment_steps, collect_wall, collect_cpu, _candidates(metrics))

    def _timed(self, run: collect.Collect) -> collect.Collect:
        def timed(tasks: Sequence[Task], meta: Tensors, state: Tensors, seeds: Sequence[int], step: int) -> Rollout:
            clock = Clock()
            played = run(tasks, meta, state, seeds, step)
            (wall, cpu), (wall_before, cpu_before) = clock.read(), self._collecting or (0.0, 0.0)
            self._collecting = wall_before + wall, cpu_before + cpu
            return played

        return timed


def _candidates(metrics: Mapping[str, float]) -> float | None:
    """How far the line search went, from the share of the longest step that it took."""
    if "step_size" not in metrics:
        return None
    share, count = 1.0, 1
    while share > metrics["step_size"] and count < outer_trpo.BACKTRACKS:
        share, count = share * outer_trpo.BACKTRACK_RATIO, count + 1
    return count


def floor(updates: Updates) -> Floor:
    """Run one more outer step, once to count and once to measure, and multiply some matrices."""
    tasks = updates.tasks()
    played = updates.student.play(updates.meta, tasks, list(range(len(tasks))))
    everyone = [True] * len(tasks)
    with FlopCounterMode(display=False) as counter:
        updates.student.learn(updates.meta, optimiser.start(updates.meta), played, everyone, 0, 0)
    clock = Clock()
    updates.student.learn(updates.meta, optimiser.start(updates.meta), played, everyone, 0, 0)
    seconds = clock.read()[1]
    return Floor(counter.get_total_flops(), matmul_rate(), seconds)


def matmul_rate(repeats: int = 200) -> float:
    """Floating point operations a second of processor time, in the products of a hidden layer of one task."""
    steps, width = MAML_EPISODES * 100, int(MAML["hidden_sizes"][0])
    x, w = torch.randn(1, steps, width), torch.randn(1, width, width)
    out = torch.bmm(x, w)
    clock = Clock()
    for _ in range(repeats):
        torch.bmm(x, w, out=out)
    operations = repeats * 2 * steps * width * width
    return operations / clock.read()[1]


def peers(threads: int) -> PeerProcess:
    """The other virtual environment's process, made where there is none, with so many torch threads."""
    python = PEERS_VENV / "bin/python"
    if not (PEERS_VENV / "installed").exists():
        print(f"installing the peers into {PEERS_VENV} (minutes, the first time)", file=sys.stderr)
        subprocess.run([PEERS / "install-trainers", PEERS_VENV], check=True)
        (PEERS_VENV / "installed").touch()
    return PeerProcess(python, PEERS / "trainers.py", {"OMP_NUM_THREADS": str(threads)})


def interleaved(ours: Callable[[], Cost], theirs: Callable[[], Cost], rounds: int) -> list[tuple[Cost, Cost]]:
    """Pairs (ours, theirs), one a round, after one of each to warm up."""
    ours()
    pairs = []
    for index in range(rounds):
        if index % 2:
            b, a = theirs(), ours()
        else:
            a, b = ours(), theirs()
        pairs.append((a, b))
    return pairs


def seconds_line(name: str, peer: str, pairs: Sequence[tuple[Cost, Cost]]) -> Line:
    """Seconds an update."""
    wall = [(a.wall, b.wall) for a, b in pairs]
    cpu = [(a.cpu, b.cpu) for a, b in pairs]
    return _line(name, "s", peer, wall, [b / a for a, b in wall], [b / a for a, b in cpu])


def rate_line(name: str, peer: str, pairs: Sequence[tuple[Cost, Cost]], part: str) -> Line:
    """Environment steps a second, of all (``part`` is empty) or of the part of that name."""

    def rates(clock: str) -> list[tuple[float, float]]:
        return [(a.env_steps / getattr(a, part + clock), b.env_steps / getattr(b, part + clock)) for a, b in pairs]

    wall = rates("wall")
    return _line(name, "steps/s", peer, wall, [a / b for a, b in wall], [a / b for a, b in rates("cpu")])


def _line(
    name: str,
    unit: str,
    peer: str,
    values: Sequence[tuple[float, float]],
    wall_ratios: Sequence[float],
    cpu_ratios: Sequence[float],
) -> Line:
    ours, theirs = (statistics.median(side) for side in zip(*values, strict=True))
    return Line(name, unit, ours, peer, theirs, statistics.median(wall_ratios), statistics.median(cpu_ratios))


def main() -> None:
    """Print the table, or JSON for programs."""
    parser = argparse.ArgumentParser(prog="scripts/bench updates", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--quick", action="store_true", help=f"one round; learn2learn on {QUICK_TASKS} tasks, scaled up"
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="torch threads of each computing process, ours and theirs"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rounds, asked = (1, QUICK_TASKS) if options.quick else (options.rounds, MAML_TASKS)
    maml, rl2 = Updates("navigation-2d", "maml", MAML), Updates("bernoulli-bandit.arms-10.pulls-100", "rl2", RL2)
    process = peers(options.threads)

    def theirs(factor: float, **request: Any) -> Cost:
        answer = process.ask(**request)
        if "error" in answer:
            raise SystemExit(f"{request['peer']}: {answer['error']}")
        return Cost(**answer).times(factor)

    try:
        of_maml = interleaved(maml.update, lambda: theirs(MAML_TASKS / asked, peer="learn2learn", tasks=asked), rounds)
        of_rl2 = interleaved(rl2.update, lambda: theirs(1, peer=SAME), max(rounds, 3))
        of_theirs = interleaved(rl2.update, lambda: theirs(1, peer=AS_IT_COMES), max(rounds, 3))
    finally:
        process.close()
    found = [
        seconds_line("maml-trpo, update", "learn2learn", of_maml),
        rate_line("maml-trpo, episodes", "learn2learn", of_maml, "collect_"),
        rate_line("rl2-ppo, update", SAME, of_rl2, ""),
        rate_line("rl2-ppo, update", AS_IT_COMES, of_theirs, ""),
    ]
    lowest = floor(maml)
    if options.json:
        pairs = {"maml-trpo": of_maml, "rl2-ppo": of_rl2, "rl2-ppo, theirs as it comes": of_theirs}
        costs = {name: [[asdict(a), asdict(b)] for a, b in rows] for name, rows in pairs.items()}
        machine = {"threads": options.threads, "cpus": os.cpu_count(), "torch": torch.__version__}
        lines = [asdict(line) for line in found]
        floor_json = {**asdict(lowest), "distance": lowest.distance}
        print(
            json.dumps({**machine, "peer_tasks": asked, "lines": lines, "floor": floor_json, "rounds": costs}, indent=2)
        )
        return
    print(f"{'':<24}{'ours':>12}{'theirs':>12}  {'':<8} {'ratio of wall time':>20}{'of processor time':>20}")
    for line in found:
        ratios = f"{line.wall_ratio:>19.1f}x{line.cpu_ratio:>19.1f}x"
        print(f"{line.name:<24}{line.ours:>12,.2f}{line.theirs:>12,.2f}  {line.unit:<8} {ratios}  {line.peer}")
    least, gigas = lowest.products / lowest.rate, (lowest.products / 1e9, lowest.rate / 1e9)
    print(
        f"outer step of maml-trpo: {gigas[0]:.0f} GFLOP of matrix products, {least:.2f} s at {gigas[1]:.0f} a second;"
    )
    print(f"it took {lowest.seconds:.2f} s of processor time, {lowest.distance:.1f} times as long")


if __name__ == "__main__":
    main()
