"""Small families for the actors' tests, and what the tests need to order episodes of them.

``registry`` is the source that pools are given. Gates let a test stop an actor inside a step and know that it is
there: an environment that is stepped for the third time while ``$TOY_GATE/armed`` exists writes its process id into
the fifo ``$TOY_GATE/reached`` and reads the fifo ``$TOY_GATE/go`` before it goes on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from innerloop.arrays import Array, Box, Discrete, Space
from innerloop.policy import Header, weight_shapes
from innerloop_server.actors.orders import Answer, EpisodesOrder
from innerloop_server.actors.pool import ActorPool
from innerloop_server.domain import Split, Task
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import Registry

SOURCE = "toy_families:registry"
FORBIDDEN = ("torch", "grpc", "sqlalchemy", "innerloop_server.service", "innerloop_server.learners.learner")

Step = tuple[Array, float, bool, bool, dict[str, Any]]


class Walk(gymnasium.Env[Array, Array]):
    """A drunken walk that ends by chance: what happens depends on the seed, the task and every action."""

    def __init__(self, drift: float) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.drift = drift
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        self.state = self.np_random.standard_normal(3)
        return self.state.astype(np.float32), {}

    def step(self, action: Any) -> Step:
        self.steps += 1
        push = np.resize(np.asarray(action, np.float64), 3)
        self.state = 0.9 * self.state + self.drift + 0.3 * push + 0.1 * self.np_random.standard_normal(3)
        ended = bool(self.np_random.random() < 0.02)
        return self.state.astype(np.float32), float(-np.square(self.state).sum()), ended, False, {}


class Retargetable(Walk):
    """A walk that counts how many of its kind were made, and takes a new task without being made again."""

    made = 0

    def __init__(self, drift: float) -> None:
        super().__init__(drift)
        type(self).made += 1

    def set_task(self, parameters: Mapping[str, Array]) -> None:
        self.drift = float(parameters["drift"])

    def step(self, action: Any) -> Step:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float(self.made), terminated, truncated, info


class Gated(Walk):
    """A walk that stops at a gate (see the module)."""

    def step(self, action: Any) -> Step:
        folder = Path(os.environ["TOY_GATE"])
        if self.steps == 2 and (folder / "armed").exists():
            (folder / "reached").write_text(str(os.getpid()))
            (folder / "go").read_text()
        return super().step(action)


class Deadly(Walk):
    """Takes its process along in the second step."""

    def step(self, action: Any) -> Step:
        if self.steps == 1:
            os._exit(9)
        return super().step(action)


class Unpicklable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("the motor is on fire")

    def __reduce__(self) -> str:
        raise AssertionError("a foreign exception was pickled")


class Raising(Walk):
    def step(self, action: Any) -> Step:
        if self.steps == 5:
            raise Unpicklable(1, 2)
        return super().step(action)


class NotFinite(Walk):
    """drift 1: a reward that is not a number; otherwise: an observation."""

    def step(self, action: Any) -> Step:
        observation, reward, _, truncated, info = super().step(action)
        if self.steps == 4:
            return (
                (observation, np.nan, False, False, {})
                if self.drift == 1
                else (observation * np.inf, 0.0, False, False, {})
            )
        return observation, reward, False, truncated, info


class Misshapen(Walk):
    def step(self, action: Any) -> Step:
        return np.float32(0.5), 0.0, False, False, {}  # type: ignore[return-value]


class Census(Walk):
    """Rewards: 1 for numpy loaded, 1000 for each module that an actor must not load."""

    def step(self, action: Any) -> Step:
        loaded = 1000.0 * sum(name in sys.modules for name in FORBIDDEN) + ("numpy" in sys.modules)
        return np.zeros(3, np.float32), loaded, True, False, {}


@dataclass
class Toy(Family):
    """A family around one of the classes above."""

    name: str
    env: type[Walk]
    action_space: Space = Box.of(-1, 1, (2,))  # noqa: RUF009 - a frozen value
    environments_change_task: bool = False
    horizon: int = 40
    title: str = "toy"
    description: str = "toy"

    @property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        return gymnasium.spaces.Dict({"drift": gymnasium.spaces.Box(-1, 1, (), np.float64)})

    @property
    def observation_space(self) -> Space:
        return Box.of(-np.inf, np.inf, (3,))

    def sample(self, rng: np.random.Generator, split: Split = Split.TRAIN) -> dict[str, Array]:
        return {"drift": np.asarray(rng.uniform(-1, 1))}

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        return self.env(float(task.parameters["drift"]))


FAMILIES = {
    family.name: family
    for family in (
        Toy("walk", Walk),
        Toy("coin-walk", Walk, Discrete(3)),
        Toy("retargetable", Retargetable, environments_change_task=True),
        Toy("set-task-of-its-own", Retargetable),
        Toy("gated", Gated),
        Toy("deadly", Deadly),
        Toy("raising", Raising),
        Toy("not-finite", NotFinite),
        Toy("misshapen", Misshapen),
        Toy("census", Census),
    )
}


def registry() -> Registry:
    return Registry(FAMILIES)


def broken_registry() -> Registry:
    raise RuntimeError("the plug-in is broken")


def header(family: str = "walk", hidden: tuple[int, ...] = (16, 16)) -> Header:
    space = FAMILIES[family].action_space
    box = () if isinstance(space, Discrete) else (1.0,) * space.size
    return Header(
        observation_space=FAMILIES[family].observation_space,
        action_space=space,
        hidden_sizes=hidden,
        observation_shift=(0.1,) * 3,
        observation_scale=(2.0,) * 3,
        action_shift=tuple(0.0 for _ in box),
        action_scale=box,
        family=family,
    )


def order(key: int, family: str = "walk", **changes: Any) -> EpisodesOrder:
    """An order whose task, policy and seed all follow from its key."""
    rng = np.random.default_rng(key)
    head = changes.pop("header", header(family))
    values: dict[str, Any] = {
        "key": key,
        "family": family,
        "parameters": {"drift": np.asarray(rng.uniform(-0.5, 0.5))},
        "header": head,
        "weights": {k: (rng.standard_normal(s) / 2).astype(np.float32) for k, s in weight_shapes(head).items()},
        "episodes": 7,
        "horizon": 40,
        "seed": 1_000 + key,
        "step": 2,
        "phase": 1,
        **changes,
    }
    return EpisodesOrder(**values)


def settle(pool: ActorPool, answers: int) -> dict[int, Answer]:
    """Wait until that many answers have come, as an owner would: asleep on the pool's waitables."""
    got: dict[int, Answer] = {}
    while True:
        for answer in pool.poll():
            assert answer.key not in got
            got[answer.key] = answer
        if len(got) >= answers:
            return got
        wait(pool.waitables)


def settle_slots(pool: ActorPool, used: int) -> None:
    """Wait until that many slots are taken; nothing may be answered meanwhile."""
    while sum(pool.statistics().slots_used) != used:
        wait(pool.waitables)
        assert pool.poll() == []


class Gate:
    """The test's side of a gate."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for fifo in ("reached", "go"):
            os.mkfifo(folder / fifo)
        (folder / "armed").touch()

    def reached(self) -> int:
        """Wait until an actor stands before the gate: its process id."""
        return int((self._folder / "reached").read_text())

    def disarm(self) -> None:
        """Nobody else stops here."""
        (self._folder / "armed").unlink()

    def open(self) -> None:
        """Let the one that stands here go on."""
        (self._folder / "go").write_text("go")
