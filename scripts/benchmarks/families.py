"""Environment steps a second of every tensor-native family, and of two actors, beside the alternatives.

The alternatives: one Gymnasium environment in a bare loop; Gymnasium's AsyncVectorEnv with two workers; and, in a
virtual environment of their own (``.venv-peers``, made on first use), gymnax (JAX on the CPU) and EnvPool where they
have the environment. Ours steps a batch on one thread, as the engine does; all others use both cores. Slices of all
sides are interleaved in one run and a ratio is the median over rounds. In ours every row is a different task; in
theirs all rows are the same.
Run it: ``scripts/bench families [FAMILY...] [--json] [--no-peers]``.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from benchmarks.peers.process import PeerProcess

from innerloop.arrays import Discrete
from innerloop.policy import Header, weight_shapes
from innerloop_server.actors.orders import EpisodesFailure, EpisodesOrder
from innerloop_server.actors.pool import ActorPool
from innerloop_server.domain import Simulator, Split, Task
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task, stack_parameters

ROWS = 1024
"""Tasks in a batch, one episode each."""
CHUNK = 100
"""Steps of every row between two looks at the clock."""
THREADS = 2
ACTOR_ROWS = 64
ASYNC_WORKERS = 2
PEERS_PYTHON = Path(".venv-peers/bin/python")
PEERS = Path(__file__).parent / "peers"
GYMNAX = {
    "bernoulli-bandit": "BernoulliBandit-misc",
    "navigation-2d": "PointRobot-misc",
    "point-robot-dense": "PointRobot-misc",
    "cartpole-dynamics": "CartPole-v1",
    "pendulum-dynamics": "Pendulum-v1",
    "acrobot-dynamics": "Acrobot-v1",
}
ENVPOOL = {
    "cartpole-dynamics": ("CartPole-v1", 512),
    "pendulum-dynamics": ("Pendulum-v1", 512),
    "acrobot-dynamics": ("Acrobot-v1", 512),
    "halfcheetah-velocity": ("HalfCheetah-v5", ACTOR_ROWS),
}
ACTORS = ("halfcheetah-velocity",)
"""Families that are measured on actors, with a 64-64 policy."""

Measure = Callable[[float], float | None]
"""Seconds -> environment steps a second; ``None``: the peer does not have it."""


@dataclass(frozen=True)
class Line:
    """One family's line of the table: median steps a second of each side, and ours over each other."""

    family: str
    ours: str
    """``batch`` or ``actors``."""
    rates: dict[str, float]
    ratios: dict[str, float]


class Batch:
    """A tensor-native family under random actions with automatic resets: ``CHUNK`` steps a call."""

    def __init__(self, family: Family) -> None:
        """Args:
        family: whose first ``ROWS`` training tasks are stepped.
        """
        tasks = [sample_task(family, 0, Split.TRAIN, index) for index in range(ROWS)]
        self._batch: TaskBatch = family.batch(stack_parameters(tasks), torch.device("cpu"))
        self._family = family
        self._clock = torch.arange(ROWS)[:, None] % family.horizon
        self._state, _ = self._batch.reset(self._draw(self._batch.reset_uniforms))

    @torch.inference_mode()
    def chunk(self) -> None:
        """``CHUNK`` steps of every row, actions and starts drawn here too."""
        batch, horizon = self._batch, self._family.horizon
        actions = self._actions()
        chances = torch.rand(CHUNK, ROWS, 1, batch.step_uniforms, dtype=torch.float64) if batch.step_uniforms else None
        starts, _ = batch.reset(self._draw(batch.reset_uniforms))
        state, clock = self._state, self._clock
        for t in range(CHUNK):
            state, _, _, terminated = batch.step(state, actions[t], None if chances is None else chances[t])
            clock = clock + 1
            ended = terminated | (clock >= horizon)
            state = torch.where(ended[..., None], starts, state)
            clock = torch.where(ended, 0, clock)
        self._state, self._clock = state, clock

    def _actions(self) -> torch.Tensor:
        space = self._family.action_space
        if isinstance(space, Discrete):
            return torch.randint(0, space.n, (CHUNK, ROWS, 1))
        low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
        return low + (high - low) * torch.rand(CHUNK, ROWS, 1, *space.shape)

    def _draw(self, size: int) -> torch.Tensor:
        return torch.rand(ROWS, 1, size, dtype=torch.float64)


def batch_side(family: Family) -> Measure:
    """Our tensor-native face."""
    simulated = Batch(family)
    simulated.chunk()
    return lambda seconds: rate(simulated.chunk, CHUNK * ROWS, seconds)


def bare_side(family: Family) -> Measure:
    """One environment of ours in a plain loop."""
    env = family.make(sample_task(family, 0, Split.TRAIN, 0))
    actions = [env.action_space.sample() for _ in range(CHUNK)]
    env.reset(seed=0)

    def chunk() -> None:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return lambda seconds: rate(chunk, CHUNK, seconds)


def make_one(name: str, index: int) -> gymnasium.Env[Any, Any]:
    """The training task at ``index``, in whatever process asks."""
    family = load_registry().get(name)
    return family.make(sample_task(family, 0, Split.TRAIN, index))


def async_side(family: Family) -> Measure:
    """Gymnasium's AsyncVectorEnv, one environment a worker."""
    makers = [functools.partial(make_one, family.name, index) for index in range(ASYNC_WORKERS)]
    env = gymnasium.vector.AsyncVectorEnv(makers, context="spawn")
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(CHUNK)]

    def chunk() -> None:
        for action in actions:
            env.step(action)

    chunk()
    return lambda seconds: rate(chunk, CHUNK * ASYNC_WORKERS, seconds)


def actors_side(family: Family, pool: ActorPool) -> Measure:
    """Two actors with ``ACTOR_ROWS`` environments, each row acting by a 64-64 policy."""
    header = Header(
        observation_space=family.observation_space,
        action_space=family.action_space,
        hidden_sizes=(64, 64),
        observation_shift=family.observation_shift,
        observation_scale=family.observation_scale,
        action_shift=family.action_shift,
        action_scale=family.action_scale,
        family=family.name,
    )
    rng = np.random.default_rng(0)
    weights = {k: (0.1 * rng.standard_normal(s)).astype(np.float32) for k, s in weight_shapes(header).items()}
    task = sample_task(family, 0, Split.TRAIN, 0)
    serial = [0]

    def measure(seconds: float) -> float:
        steps, began = 0, time.perf_counter()
        while (passed := time.perf_counter() - began) < seconds:
            steps += _episodes(pool, family, task, header, weights, serial)
        return steps / passed

    measure(0.1)  # start, import, make
    return measure


def _episodes(
    pool: ActorPool, family: Family, task: Task, header: Header, weights: dict[str, Any], serial: list[int]
) -> int:
    serial[0] += 1
    key = serial[0]
    pool.submit(
        EpisodesOrder(key, family.name, task.parameters, header, weights, ACTOR_ROWS, family.horizon, key, 0, 0)
    )
    while True:
        wait(pool.waitables)
        for answer in pool.poll():
            if isinstance(answer, EpisodesFailure):
                raise SystemExit(answer.message)
            return answer.env_steps


class Peers:
    """The other virtual environment's process."""

    def __init__(self) -> None:
        """Make the environment where there is none."""
        if not PEERS_PYTHON.exists():
            print("installing the peers into .venv-peers (minutes, the first time)", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", ".venv-peers"], check=True)
            pip = (str(PEERS_PYTHON), "-m", "pip", "install", "--quiet")
            subprocess.run([*pip, "-r", str(PEERS / "requirements.txt")], check=True)
        self._process = PeerProcess(PEERS_PYTHON, PEERS / "simulators.py")

    def side(self, **request: Any) -> Measure:
        """One environment of one peer."""

        def measure(seconds: float) -> float | None:
            answer = self._process.ask(**request, seconds=seconds)
            if "error" in answer:
                print(f"{request['peer']} {request['environment']}: {answer['error']}", file=sys.stderr)
            return answer.get("rate")

        measure(0.1)  # compile
        return measure

    def close(self) -> None:
        """End the process."""
        self._process.close()


def rate(chunk: Callable[[], None], steps: int, seconds: float) -> float:
    """Environment steps a second of a function that takes ``steps`` of them."""
    done, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        chunk()
        done += steps
    return done / passed


def compare(family: Family, ours: str, sides: dict[str, Measure], rounds: int, seconds: float) -> Line:
    """All sides, interleaved."""
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            value = side(seconds)
            if value is not None:
                measured[name].append(value)
    measured = {name: values for name, values in measured.items() if values}
    return Line(
        family.name,
        ours,
        {name: statistics.median(values) for name, values in measured.items()},
        {
            name: statistics.median(a / b for a, b in zip(measured[ours], values, strict=True))
            for name, values in measured.items()
            if name != ours
        },
    )


def lines(rounds: int, seconds: float, only: list[str], peers: Peers | None) -> Iterator[Line]:
    """A line for each family, as it is measured."""
    registry = load_registry()
    for name in only or registry.names():
        family = registry.get(name)
        if family.extra is not None and family.extra.missing:
            continue
        if Simulator.BATCH in family.simulators:
            with _sides(family, "batch", peers) as sides:
                yield compare(family, "batch", {"batch": batch_side(family), **sides}, rounds, seconds)
        if name in ACTORS:
            with _sides(family, "actors", peers) as sides, ActorPool(THREADS, slots=ACTOR_ROWS // THREADS) as pool:
                yield compare(family, "actors", {"actors": actors_side(family, pool), **sides}, rounds, max(seconds, 2))


@contextmanager
def _sides(family: Family, ours: str, peers: Peers | None) -> Iterator[dict[str, Measure]]:
    sides = {"bare loop": bare_side(family), "AsyncVectorEnv": async_side(family)}
    if peers is not None and family.name in GYMNAX and ours == "batch":
        sides["gymnax"] = peers.side(peer="gymnax", environment=GYMNAX[family.name], rows=ROWS)
    if peers is not None and family.name in ENVPOOL:
        environment, rows = ENVPOOL[family.name]
        sides["EnvPool"] = peers.side(peer="envpool", environment=environment, rows=rows, threads=THREADS)
    yield sides


def main() -> None:
    """Print the table, or JSON for programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", help="only these")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--no-peers", action="store_true", help="leave gymnax and EnvPool out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each slice")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as the engine computes
    peers = None if arguments.no_peers else Peers()
    columns = ("bare loop", "AsyncVectorEnv", "gymnax", "EnvPool")
    found = []
    if not arguments.json:
        heads = "".join(f"{column:>24}" for column in columns)
        print(f"{'family':<22}{'ours':<8}{'steps/s':>12}{heads}   (steps a second, ours / theirs)")
    try:
        for line in lines(arguments.rounds, arguments.seconds, arguments.families, peers):
            found.append(asdict(line))
            if not arguments.json:
                cells = "".join(
                    f"{line.rates[c]:>15,.0f} {line.ratios[c]:>7.2f}x" if c in line.rates else f"{'-':>24}"
                    for c in columns
                )
                print(f"{line.family:<22}{line.ours:<8}{line.rates[line.ours]:>12,.0f}{cells}", flush=True)
    finally:
        if peers is not None:
            peers.close()
    if arguments.json:
        print(json.dumps({"rows": ROWS, "threads": THREADS, "torch": torch.__version__, "lines": found}, indent=2))


if __name__ == "__main__":
    main()
