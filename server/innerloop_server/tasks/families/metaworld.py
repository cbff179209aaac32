"""``metaworld-ml1``, ``metaworld-ml10``, ``metaworld-ml45``: Meta-World's benchmarks for meta-learning.

https://meta-world.github.io; Yu et al. 2019, https://arxiv.org/abs/1910.10897.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from innerloop.arrays import Array, Box
from innerloop_server.domain import Split, Task
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.families.metaworld_env import ACTION_SIZE, OBSERVATION_SIZE, ManipulationEnv
from innerloop_server.tasks.family import Extra, Family
from innerloop_server.tasks.options import configured_name

HORIZON = 500
GOALS = 50
"""Goals of an environment in a split."""


def _named(text: str) -> tuple[str, ...]:
    return tuple(f"{name}-v3" for name in text.split())


ML10_TRAIN = _named(
    "reach push pick-place door-open drawer-close button-press-topdown peg-insert-side window-open sweep basketball"
)
ML10_TEST = _named("drawer-open door-close shelf-place sweep-into lever-pull")
ML45_TRAIN = _named(
    "assembly basketball button-press-topdown button-press-topdown-wall button-press button-press-wall coffee-button "
    "coffee-pull coffee-push dial-turn disassemble door-close door-open drawer-close drawer-open faucet-open "
    "faucet-close hammer handle-press-side handle-press handle-pull-side handle-pull lever-pull pick-place-wall "
    "pick-out-of-hole push-back pick-place plate-slide plate-slide-side plate-slide-back plate-slide-back-side "
    "peg-insert-side peg-unplug-side soccer stick-push stick-pull push-wall push reach-wall reach shelf-place "
    "sweep-into sweep window-open window-close"
)
ML45_TEST = _named("bin-picking box-close hand-insert door-lock door-unlock")
ENVIRONMENTS = tuple(sorted(ML45_TRAIN + ML45_TEST))
"""All 50 that Meta-World 3 has."""

_BLOCKS: Mapping[Split, int] = {Split.TRAIN: 0, Split.VALIDATION: 1, Split.TEST: 2}
_COMMON = (
    "Meta-World 3 (MuJoCo, a Sawyer arm, 0.0125 s a step). {hidden} A goal is what Meta-World draws anew for a task: "
    "where the target is and where objects lie. Of each environment's goals 0 to 149, the first 50 are for training, "
    "the next for validation, the last for test. {splits} Reward: Meta-World's shaped one (version 2), between 0 and "
    "10 a step; success is its flag at any step. Observation: its 39 numbers, hand, gripper and objects now and a step "
    "ago; the three that would show the target are zero, as in all its meta-learning benchmarks. Never terminates, not "
    "at success either; truncated after 500 steps; discount 0.99. Starts are fixed by the task. Goals come from a "
    "stream of the environment's and the goal's own (Meta-World draws them from one stream of numpy's global state, so "
    "that they depend on its seed and on what is drawn before): the same distribution, other numbers, and the goal of "
    "a name is the same in every benchmark. Runs on MuJoCo 4 too, whose longer weld rows Meta-World 3.0 does not fill "
    "by itself."
)
_OBJECT = (0.2, 0.2, 0.2, 0.7, 0.7, 0.7, 0.7)
_SEEN = (0.2, 0.2, 0.2, 0.5, *_OBJECT * 2)


class _MetaWorld(Family):
    """What the benchmarks share."""

    horizon = HORIZON
    extra = Extra("metaworld", ("metaworld",))
    environments_change_task = True
    splits_hold_out = True
    knows_success = True
    _train: Sequence[str]
    _test: Sequence[str]

    @functools.cached_property
    def environments(self) -> tuple[str, ...]:
        """Names of the environments that ``environment`` counts: those for training, then any others for test."""
        return tuple(dict.fromkeys((*self._train, *self._test)))

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """``goal``; and ``environment``, where there are several."""
        parts: dict[str, gymnasium.Space[Any]] = {"goal": gymnasium.spaces.Discrete(GOALS * len(_BLOCKS))}
        if len(self.environments) > 1:
            parts["environment"] = gymnasium.spaces.Discrete(len(self.environments))
        return gymnasium.spaces.Dict(parts)

    @functools.cached_property
    def observation_space(self) -> Box:
        """Hand, gripper, two objects' places and orientations; the same a step ago; three zeros."""
        return Box.of(-np.inf, np.inf, (OBSERVATION_SIZE,))

    @functools.cached_property
    def action_space(self) -> Box:
        """How the hand is moved along three axes, in cm, and how the gripper is closed."""
        return Box.of(-1.0, 1.0, (ACTION_SIZE,))

    @property
    def observation_shift(self) -> tuple[float, ...]:
        """The middle of the table."""
        seen = (0.0, 0.6, 0.2, 0.5, 0.0, 0.6, 0.1, *(0.0,) * 11)
        return (*seen, *seen, 0.0, 0.0, 0.0)

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """The reach of the hand, in m, and the length of a quaternion's part."""
        return (*_SEEN, *_SEEN, 1.0, 1.0, 1.0)

    def sample(self, rng: np.random.Generator, split: Split = Split.TRAIN) -> dict[str, Array]:
        """Uniform over the split's environments and goals."""
        environment = rng.choice(self._of(split))
        return self._parameters(int(environment), GOALS * _BLOCKS[split] + int(rng.integers(GOALS)))

    def enumerate(self, split: Split) -> list[dict[str, Array]]:
        """The first goal of each of the split's environments, then the second of each, and so on."""
        first = GOALS * _BLOCKS[split]
        return [self._parameters(e, goal) for goal in range(first, first + GOALS) for e in self._of(split)]

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See :class:`ManipulationEnv`.

        Raises:
            PreconditionFailed: Meta-World is not installed; the message says how to get it.
        """
        self.extra.require(self.name)
        return TimeLimit(ManipulationEnv(self.environments, ENVIRONMENTS, task.parameters), HORIZON)

    def _of(self, split: Split) -> list[int]:
        """Where the split's environments are among ``environments``."""
        names = self._test if split is Split.TEST else self._train
        return [self.environments.index(name) for name in names]

    def _parameters(self, environment: int, goal: int) -> dict[str, Array]:
        values = {"environment": environment, "goal": goal}
        return {name: np.asarray(values[name]) for name in self.parameter_space.spaces}


class MetaWorldML1(_MetaWorld):
    """ML1: one environment, new goals at test."""

    title = "One manipulation task, hidden goals (Meta-World ML1)"
    options: ClassVar[Mapping[str, int | str]] = {"task": "reach-v3"}
    description = _COMMON.format(
        hidden="Hidden: goal.",
        splits="All are of the environment that the option task names, any of Meta-World's 50.",
    )

    def __init__(self, task: str = "reach-v3") -> None:
        """Args:
            task: name of an environment.

        Raises:
            InvalidField: there is none of that name.
        """
        if task not in ENVIRONMENTS:
            raise InvalidField("options.task", f"{task!r} is none of Meta-World's: {', '.join(ENVIRONMENTS)}")
        self.name = configured_name("metaworld-ml1", self.options, {"task": task})
        self._train = self._test = (task,)


class MetaWorldML10(_MetaWorld):
    """ML10: ten environments to train on, five others at test."""

    name = "metaworld-ml10"
    title = "Ten manipulation tasks to learn from, five new ones (Meta-World ML10)"
    description = _COMMON.format(
        hidden="Hidden: environment and goal.",
        splits=(
            f"Training and validation are of ten environments ({', '.join(ML10_TRAIN)}), "
            f"test is of five others ({', '.join(ML10_TEST)})."
        ),
    )
    _train, _test = ML10_TRAIN, ML10_TEST


class MetaWorldML45(_MetaWorld):
    """ML45: 45 environments to train on, five others at test."""

    name = "metaworld-ml45"
    title = "45 manipulation tasks to learn from, five new ones (Meta-World ML45)"
    description = _COMMON.format(
        hidden="Hidden: environment and goal.",
        splits=f"Training and validation are of 45 environments, test is of the five others ({', '.join(ML45_TEST)}).",
    )
    _train, _test = ML45_TRAIN, ML45_TEST
