"""Environment steps a second of two actors, policy included, beside one environment in a bare loop.

Slices of both are interleaved in one run and the ratio is the median over pairs, so that a machine that is busy, or
whose clock moves, disturbs both sides alike. Run it: ``python scripts/benchmarks/actors.py [--json]``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from typing import Any

import numpy as np

from innerloop.arrays import Arrays
from innerloop.policy import Header, weight_shapes
from innerloop_server.actors.orders import EpisodesFailure, EpisodesOrder
from innerloop_server.actors.pool import ActorPool
from innerloop_server.domain import Task
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import load_registry

HIDDEN = {"cartpole-dynamics": (32, 32), "halfcheetah-velocity": (64, 64)}
ACTORS = 2
EPISODES = 20
"""Of an order: what an adaptation step asks for."""
ORDERS = {"cartpole-dynamics": 12, "halfcheetah-velocity": 2}
"""In flight together in a slice."""


@dataclass(frozen=True)
class Figure:
    """One family's line of the table."""

    family: str
    policy: str
    bare_steps_per_second: float
    actors_steps_per_second: float
    ratio: float
    """Median over the slices of actors / bare."""
    ratios: tuple[float, ...]


def benchmark(name: str, slices: int) -> Figure:
    """Measure one family, ``slices`` pairs of slices."""
    family = load_registry().get(name)
    header, weights = _policy(family, HIDDEN[name])
    parameters = family.sample(np.random.default_rng(0))
    if "force_sign" in parameters:
        parameters["force_sign"] = np.ones_like(parameters["force_sign"])  # what the balancing policy was made for
    keys = itertools.count()
    with ActorPool(ACTORS, slots=256) as pool:
        _actors_slice(pool, family, header, weights, parameters, ORDERS[name], keys)  # start, import, make
        pairs = []
        for i in range(slices):
            bare = _bare_slice(family, parameters, seconds=1.0, seed=i)
            pairs.append((bare, _actors_slice(pool, family, header, weights, parameters, ORDERS[name], keys)))
    ratios = tuple(actors / bare for bare, actors in pairs)
    return Figure(
        family=name,
        policy="-".join(str(n) for n in (header.observation_size, *header.hidden_sizes, header.action_size)),
        bare_steps_per_second=statistics.median(bare for bare, _ in pairs),
        actors_steps_per_second=statistics.median(actors for _, actors in pairs),
        ratio=statistics.median(ratios),
        ratios=ratios,
    )


def _policy(family: Family, hidden: tuple[int, ...]) -> tuple[Header, Arrays]:
    header = Header(
        observation_space=family.observation_space,
        action_space=family.action_space,
        hidden_sizes=hidden,
        observation_shift=family.observation_shift,
        observation_scale=family.observation_scale,
        action_shift=family.action_shift,
        action_scale=family.action_scale,
        family=family.name,
    )
    rng = np.random.default_rng(0)
    weights = {k: (0.1 * rng.standard_normal(s)).astype(np.float32) for k, s in weight_shapes(header).items()}
    return header, _balancing(weights) if family.name == "cartpole-dynamics" else weights


def _balancing(weights: Arrays) -> Arrays:
    """A policy of the same size that pushes after the falling pole: episodes are long, as after adaptation."""
    balancing = {name: np.zeros_like(array) for name, array in weights.items()}
    balancing["layers.0.weight"][:, 0] = (0.03, 0.05, 0.1, 0.15)
    balancing["layers.1.weight"][0, 0] = 1.0
    balancing["layers.2.weight"][0] = (-30.0, 30.0)
    return balancing


def _bare_slice(family: Family, parameters: Arrays, seconds: float, seed: int) -> float:
    """Steps a second of one environment and nothing else: random actions drawn beforehand."""
    env = family.make(Task(family.name, dict(parameters)))
    env.action_space.seed(seed)
    actions = [env.action_space.sample() for _ in range(1_000)]
    env.reset(seed=seed)
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        steps += len(actions)
    rate = steps / (time.perf_counter() - began)
    env.close()
    return rate


def _actors_slice(
    pool: ActorPool,
    family: Family,
    header: Header,
    weights: Arrays,
    parameters: Arrays,
    orders: int,
    keys: itertools.count[int],
) -> float:
    """Steps a second from the first order to the last answer."""
    began, steps = time.perf_counter(), 0
    for key in itertools.islice(keys, orders):
        pool.submit(EpisodesOrder(key, family.name, parameters, header, weights, EPISODES, family.horizon, key, 0, 0))
    while orders:
        wait(pool.waitables)
        for answer in pool.poll():
            if isinstance(answer, EpisodesFailure):
                raise SystemExit(answer.message)
            steps += answer.env_steps
            orders -= 1
    return steps / (time.perf_counter() - began)


def main() -> None:
    """Print the table, or JSON for programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--slices", type=int, default=5, help="pairs of slices a family")
    arguments = parser.parse_args()
    figures = [benchmark(name, arguments.slices) for name in HIDDEN]
    if arguments.json:
        value: list[dict[str, Any]] = [asdict(figure) for figure in figures]
        print(json.dumps(value, indent=2))
        return
    print(f"{'family':<22}{'policy':>14}{'bare loop':>12}{f'{ACTORS} actors':>12}{'ratio':>8}   (env steps a second)")
    for figure in figures:
        print(
            f"{figure.family:<22}{figure.policy:>14}{figure.bare_steps_per_second:>12,.0f}"
            f"{figure.actors_steps_per_second:>12,.0f}{figure.ratio:>8.2f}"
        )


if __name__ == "__main__":
    main()
