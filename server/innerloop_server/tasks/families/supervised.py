"""What the supervised families share: one-step tasks. An example is shown, a prediction made, the answer told.

Who wants N examples of a task runs N episodes. ``reset`` takes two options: ``episode``, the example's number (left
out, the environment counts its resets), which decides its class, number mod ways, so that N examples are balanced; and
``query``, true for an example to be tested on, which no support example of a finite pool equals.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays, Box, Discrete
from innerloop_server.domain import Reference, Split, Supervision
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.options import configured_name

Example = tuple[Array, Array]
"""(observation [*O] float32, answer [F] float32)."""


class SupervisedEnv(gymnasium.Env[Array, Any]):
    """One example an episode. The step answers a prediction with ``info["feedback"]``, the right answer, and ends the
    episode (``terminated``); what is observed then is zeros.

    Reward: 1 for the right label, else 0; or minus the mean squared error over the target's dimensions.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium declares it so

    def __init__(
        self,
        example: Callable[[int, Array], Example],
        uniforms: int,
        observations: Box,
        actions: Box | Discrete,
    ) -> None:
        """A task.

        Args:
            example: the example of a label (0 in regression) that uniform numbers in [0, 1) pick, [uniforms] float64,
                the first of them in the lower half for support and in the upper for queries.
            uniforms: how many numbers a reset draws.
            observations: what examples look like.
            actions: what predictions are; examples go through the labels in turn.
        """
        self.observation_space = gymnasium.spaces.Box(observations.low, observations.high, dtype=np.float32)
        self.action_space: gymnasium.Space[Any] = (
            gymnasium.spaces.Discrete(actions.n)
            if isinstance(actions, Discrete)
            else gymnasium.spaces.Box(actions.low, actions.high, dtype=np.float32)
        )
        self._nothing = np.zeros(observations.shape, np.float32)
        self._example = example
        self._uniforms = uniforms
        self._ways = actions.n if isinstance(actions, Discrete) else 1
        self._episode = 0
        self._answer: Array | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """The next example; a seed starts the count anew."""
        super().reset(seed=seed)
        options = options or {}
        if seed is not None:
            self._episode = 0
        episode = int(options.get("episode", self._episode))
        self._episode = episode + 1
        uniforms = self.np_random.random(self._uniforms)
        uniforms[0] = (uniforms[0] + bool(options.get("query", False))) / 2
        observation, self._answer = self._example(episode % self._ways, uniforms)
        return observation, {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Compare the prediction with the answer.

        Raises:
            gymnasium.error.ResetNeeded: the example has been answered already.
        """
        if self._answer is None:
            raise gymnasium.error.ResetNeeded("this example is answered; reset shows the next one")
        answer, self._answer = self._answer, None
        if isinstance(self.action_space, gymnasium.spaces.Discrete):
            reward = float(int(action) == int(answer[0]))
        else:
            reward = -squared_error(np.asarray(action, np.float64), answer.astype(np.float64))
        return self._nothing.copy(), reward, True, False, {"feedback": answer}


def supervised_env(family: Family, example: Callable[[int, Array], Example], uniforms: int) -> gymnasium.Env[Any, Any]:
    """A task of ``family`` as an environment, see :class:`SupervisedEnv`; it ends by itself and needs no time limit."""
    observations, actions = family.observation_space, family.action_space
    assert isinstance(observations, Box)
    return SupervisedEnv(example, uniforms, observations, actions)


def squared_error(prediction: Array, target: Array) -> float:
    """Mean squared error over the F dimensions of one target, [F] float64 both, summed from the first to the last as
    the batch face sums them.
    """
    return float(sum(float(p - t) ** 2 for p, t in zip(prediction, target, strict=True)) / len(target))


def whole(uniform: float) -> float:
    """A number in [0, 1) from one of either half: for what is continuous, where support and queries may be drawn from
    all of it and are never the same. Exact; the batch face has its twin.
    """
    return 2 * uniform % 1


def pick(uniform: float, count: int) -> int:
    """A place in a pool of ``count`` (even) that a number in [0, 1) picks: in its first half for support, in its second
    for queries. Never past either, whatever a product rounds to; the batch face has its twin.
    """
    half = count // 2
    return half * (uniform >= 0.5) + min(int(whole(uniform) * half), half - 1)


class Classification(Family):
    """Few-shot classification. Hidden: which ``ways`` classes, and which label each of them has in this task."""

    horizon = 1
    supervision = Supervision.CLASSIFICATION
    splits_hold_out = True
    options: ClassVar[Mapping[str, int | str]] = {"ways": 2}
    classes: int
    """How many there are in all splits; parameters number them."""
    groups: Mapping[Split, Sequence[Sequence[int]]]
    """The classes of each split: a task is drawn from one group, all groups being equally likely. No class is in two
    splits, so that test tasks are about classes that training never showed."""

    def __init__(self, ways: int = 2) -> None:
        """Args:
            ways: classes of a task.

        Raises:
            InvalidField: fewer than two, or more than the smallest group has.
        """
        most = min(len(group) for groups in self.groups.values() for group in groups)
        if not 2 <= ways <= most:
            raise InvalidField("options.ways", f"is {ways}; give 2 to {most}")
        self.ways = ways
        self.name = configured_name(type(self).name, type(self).options, {"ways": ways})

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """``class_0``, ``class_1``, ...: the class behind each label; all different."""
        return gymnasium.spaces.Dict({name: gymnasium.spaces.Discrete(self.classes) for name in self._class_names})

    @functools.cached_property
    def action_space(self) -> Discrete:
        """The label."""
        return Discrete(self.ways)

    def sample(self, rng: np.random.Generator, split: Split = Split.TRAIN) -> dict[str, Array]:
        """Different classes of one of the split's groups, in any order."""
        groups = self.groups[split]
        group = groups[int(rng.integers(len(groups)))]
        chosen = rng.choice(np.asarray(group, np.int64), self.ways, replace=False)
        return {name: np.asarray(one) for name, one in zip(self._class_names, chosen, strict=True)}

    def check(self, parameters: Mapping[str, Array], field: str = "task.parameters") -> dict[str, Array]:
        """As any family's, and the classes must differ.

        Raises:
            InvalidField: as ``Family.check``; or two labels have the same class.
        """
        checked = super().check(parameters, field)
        seen: dict[int, str] = {}
        for name in self._class_names:
            other = seen.setdefault(int(checked[name]), name)
            if other != name:
                raise InvalidField(f"{field}.{name}", f"is the same as {other}; two labels need two classes")
        return checked

    @functools.cached_property
    def references(self) -> tuple[Reference, ...]:
        """Accuracies: a label says nothing before the task's first example; no prediction is more than right."""
        return (
            Reference("memoryless", 1 / self.ways, "exact: the labels of a task are dealt out at random"),
            Reference("oracle", 1.0, "bound: every label right"),
        )

    def classes_of(self, parameters: Arrays) -> Array:
        """[..., ways] int64: the class behind each label, of parameters [...]."""
        return np.stack([np.asarray(parameters[name], np.int64) for name in self._class_names], -1)

    @property
    def _class_names(self) -> tuple[str, ...]:
        return tuple(f"class_{label}" for label in range(self.ways))
